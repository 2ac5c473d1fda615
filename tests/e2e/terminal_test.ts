/** What a person sees: progress on a terminal, nothing in a pipe, a log line when asked for. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { serverUser } from "../../scripts/servers/embedded_postgres.ts";
import { skipUnless } from "../skips.ts";
import { runProgram } from "./executable.ts";
import { newHost } from "./host.ts";
import { newStore } from "./stores.ts";

const SCRIPT = "/usr/bin/script";

Deno.test({
  name: "progress is drawn in place on a terminal and gone at the end; pipes get none",
  ignore: skipUnless(existsSync(SCRIPT), "progress on a terminal", "apt-get install bsdutils"),
  fn: async () => {
    await using store = await newStore("file");
    await using host = await newHost(store);
    const server = await host.start();
    const backup = [
      ...["backup", "--immediate-checkpoint", "--max-bandwidth", "10MB"],
      ...["-d", server.conninfo(), store.url, host.serverName],
    ];
    const terminal = await onTerminal([host.executable, ...backup], host.directory);
    assert.equal(terminal.code, 0, terminal.stdout);
    const drawings = terminal.stdout.split("\r\x1b[K");
    assert.ok(drawings.length >= 4, JSON.stringify(terminal.stdout));
    assert.equal(drawings.at(0), "");
    assert.equal(drawings.at(-1), "", "the last drawing is removed");
    assert.ok(
      drawings.some((text) =>
        /^(Backup \d{8}T\d{6}: )?copying data, [\d.]+ MiB of [\d.]+ MiB \(\d+%\), [\d.]+ [KM]iB\/s, \d+ s left$/
          .test(text)
      ),
      JSON.stringify(terminal.stdout),
    );
    for (const text of drawings) assert.ok(text.length < 80 && !text.includes("\n"), text);

    const piped = await host.cloud("backup", [
      ...["--immediate-checkpoint", "-d", server.conninfo()],
    ]);
    assert.deepEqual([piped.code, piped.stdout, piped.stderr], [0, "", ""]);
    const verbose = await host.cloud("backup", [
      ...["-v", "--immediate-checkpoint", "-d", server.conninfo()],
    ]);
    assert.equal(verbose.stdout, "");
    for (const line of verbose.stderr.trimEnd().split("\n")) {
      assert.match(line, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[\d+\] INFO: \S/);
    }
    assert.match(verbose.stderr, /INFO: Backup \d{8}T\d{6} is complete\n$/);

    const restore = ["restore", store.url, host.serverName, "auto", host.newPath("restored")];
    const restoring = await onTerminal([host.executable, ...restore], host.directory);
    assert.equal(restoring.code, 0, restoring.stdout);
    assert.equal(restoring.stdout.split("\r\x1b[K").at(-1), "");
  },
});

/** Run words on a pseudo-terminal; both outputs are what it shows. */
async function onTerminal(words: readonly string[], cwd: string) {
  const line = words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  return await runProgram(SCRIPT, ["-qec", line, "/dev/null"], {
    ...(serverUser() ?? {}),
    cwd,
    env: { PATH: "/usr/bin:/bin", TERM: "xterm", SHELL: "/bin/sh" },
  });
}
