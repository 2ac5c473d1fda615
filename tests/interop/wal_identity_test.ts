/** The object that names the cluster of an archive means nothing to Barman. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { walSegment } from "../lib/wal/wal_files.ts";
import { newBucket } from "./bucket.ts";
import { NEWEST, OURS, PACKAGED, skipWithout } from "./commands.ts";

const s3 = await startS3ForTests();
const IDENTITY = "p/main/wal-identity.json";
const FIRST = "000000010000000000000001";
const SECOND = "000000010000000000000002";

for (const [barman, which] of [[NEWEST, "newest"], [PACKAGED, "packaged"]] as const) {
  Deno.test({
    name: `Barman (${which}) does not see whose archive it is, and leaves it alone`,
    ignore: s3 === null || skipWithout(barman, which),
    async fn() {
      if (s3 === null || barman === null) throw new Error("Is ignored");
      await using bucket = await newBucket(s3);
      const directory = await mkdtemp(join(tmpdir(), "interop-identity-"));
      const place = [...bucket.words, bucket.url, "main"];
      const run = async (
        tool: typeof OURS,
        command: Parameters<typeof OURS.run>[0],
        ...words: string[]
      ) => (await tool.run(command, [...place, ...words], { env: bucket.env })).code;
      const push = async (tool: typeof OURS, name: string, content = walSegment(name)) => {
        await writeFile(join(directory, name), content);
        return await run(tool, "wal-archive", join(directory, name));
      };
      try {
        assert.equal(await push(OURS, FIRST), 0);
        assert.deepEqual(await bucket.keys(), [
          IDENTITY,
          `p/main/wals/${FIRST.slice(0, 16)}/${FIRST}`,
        ]);
        // Barman writes into the same archive, and reads ours.
        assert.equal(await push(barman, SECOND), 0);
        assert.equal(await run(barman, "wal-restore", FIRST, join(directory, "restored")), 0);
        assert.deepEqual(
          await readFile(join(directory, "restored")),
          await readFile(join(directory, FIRST)),
        );
        // What Barman wrote is compared all the same.
        assert.equal(await push(OURS, SECOND), 0);
        assert.equal(await push(OURS, SECOND, walSegment(SECOND, { seed: 2 })), 4);
        assert.equal(await run(barman, "check-wal-archive"), 1);
        assert.equal(await run(barman, "backup-list"), 0);

        // Where nothing but the identity is left the archive is empty, for both.
        await using emptied = await newBucket(s3);
        await emptied.put(IDENTITY, await bucket.get(IDENTITY));
        const there = [...emptied.words, emptied.url, "main"];
        for (const tool of [barman, OURS]) {
          for (const command of ["check-wal-archive", "backup-list"] as const) {
            const { code, stderr } = await tool.run(command, there, { env: emptied.env });
            assert.equal(code, 0, `${tool.name} ${command}: ${stderr}`);
          }
        }
        assert.deepEqual(await emptied.keys(), [IDENTITY]);
      } finally {
        await rm(directory, { recursive: true, force: true });
      }
    },
  });
}
