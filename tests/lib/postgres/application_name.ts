/** Prints the application name of a session with the server of `argv`, and a variable of the environment, as JSON. */
import process from "node:process";
import { sessionOf } from "./fixtures.ts";

await using session = await sessionOf(process.argv[2] ?? "");
const [row] = await session.query("SHOW application_name");
console.log(JSON.stringify([row?.["application_name"], process.env["PGTARGETSESSIONATTRS"]]));
