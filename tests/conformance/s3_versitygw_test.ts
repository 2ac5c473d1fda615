/** The same stores against a second S3 server, which refuses what the first one passes over. */
import { startVersitygw, versitygwForTests } from "../../scripts/servers/versitygw.ts";
import { s3Conformance, VERSITYGW_FLAWS } from "./s3_stores.ts";

const program = await versitygwForTests();
const start = program === null ? undefined : () => startVersitygw(program);

s3Conformance("versitygw", "plain", start, VERSITYGW_FLAWS);
s3Conformance("versitygw", "sdk", start, VERSITYGW_FLAWS);
