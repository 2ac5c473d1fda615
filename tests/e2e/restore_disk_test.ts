import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { dataMembers, lastMembers, workspace } from "../lib/restore/fixtures.ts";
import { archive, member } from "../lib/restore/raw_tar.ts";
import { executablePath, runProgram } from "./executable.ts";

const ID = "20260115T103000";
const LARGE = { name: "base/5/16384", content: "x".repeat(6_000_000) };

/** A file that may not grow any more is as good as a full disk, and needs no rights. */
const LIMITED = `trap '' XFSZ; ulimit -f 2048; exec "$@"`;

for (
  const [where, members] of [
    ["in the middle", dataMembers(member(LARGE))],
    ["at the end", [
      ...dataMembers().slice(0, -lastMembers().length),
      ...lastMembers(),
      member(LARGE),
    ]],
  ] as const
) {
  Deno.test(`restore: a file that can't be written ${where} of an archive fails it, and is named`, async () => {
    await using space = await workspace();
    await space.putInfo(ID);
    await space.put(ID, "data.tar", archive(...members));
    const destination = join(space.directory, "new");
    const restore = [await executablePath(), "restore", space.url, "main", ID, destination];
    const { code, stderr } = await runProgram("bash", ["-c", LIMITED, "bash", ...restore]);
    assert.equal(code, 4, stderr);
    assert.match(stderr, /ERROR: Cannot write .*\/new\/base\/5\/16384: the file is too large/);
    assert.match(stderr, /The restore is incomplete/);
    assert.ok(existsSync(join(destination, "base/5/16384")));
  });
}
