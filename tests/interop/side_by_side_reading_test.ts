/** Commands that only read, and command lines that are refused: ours beside the newest Barman. */
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { COMMANDS, isAtLeast, NEWEST, skipWithout } from "./commands.ts";
import { READING } from "./reading_cases.ts";
import { SideBySide } from "./side_by_side.ts";

const server = await startS3ForTests();
const ignore = server === null || skipWithout(NEWEST, "newest");

for (const command of COMMANDS) {
  Deno.test({
    name: `${command} does what Barman's does: reading and refusing`,
    ignore,
    async fn(test) {
      if (server === null) throw new Error("Without a server this is ignored");
      const sideBySide = new SideBySide(server);
      try {
        for (const given of READING.filter((each) => each.command === command)) {
          await test.step({
            name: given.name,
            ignore: given.since !== undefined && !isAtLeast(NEWEST, ...given.since),
            fn: () => sideBySide.check(given),
          });
        }
      } finally {
        await sideBySide.close();
      }
    },
  });
}

globalThis.addEventListener("unload", () => void server?.stop());
