/** barman-cloud: the name it is called by, or the first word, chooses the command. */
import { run } from "./lib/cli/run.ts";

const code = await run({
  invokedAs: process.argv0,
  words: process.argv.slice(2),
  env: process.env,
});
// Idle connections must not keep the process alive once the command is done.
process.exit(code);
