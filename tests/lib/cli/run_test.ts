/** What a process sees of `run`: exit codes and streams when something goes wrong that no command foresees. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { chmod, copyFile, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ensureBun } from "../../../scripts/servers/npm_package.ts";
import { executablePath, runProgram } from "../../e2e/executable.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const RUN = new URL("../../../lib/cli/run.ts", import.meta.url).href;

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Run a program of ours in both runtimes; `stderr` and `stdout` may be opened files. */
async function inBoth(
  words: readonly string[],
  streams: { readonly stdout?: number; readonly stderr?: number },
  check: (ended: Ended, runtime: string) => Promise<void> | void,
): Promise<void> {
  const runtimes = [["deno", Deno.execPath(), ["run", "-A", "--config", "deno.json"]], [
    "bun",
    await ensureBun(),
    [],
  ]] as const;
  for (const [name, program, first] of runtimes) {
    const child = spawn(program, [...first, ...words], {
      cwd: ROOT,
      stdio: ["ignore", streams.stdout ?? "pipe", streams.stderr ?? "pipe"],
      timeout: 60_000,
    });
    let [stdout, stderr] = ["", ""];
    child.stdout?.setEncoding("utf8").on("data", (text: string) => stdout += text);
    child.stderr?.setEncoding("utf8").on("data", (text: string) => stderr += text);
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", resolve);
    });
    await check({ code, stdout, stderr }, name);
  }
}

async function inDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-run-"));
  try {
    await test(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** A program that runs a command made of the body of an async function `(context) => …`. */
async function programOf(directory: string, body: string): Promise<string> {
  const path = join(directory, "program.ts");
  await writeFile(
    path,
    `import { runCommand } from ${JSON.stringify(RUN)};
    const command = {
      name: "wal-restore", summary: "", description: "", positionals: [], options: [], examples: [],
      run: async (_values, context) => { ${body} },
    };
    process.exit(await runCommand(command, "wal-restore", [], {}));`,
  );
  return path;
}

Deno.test("an error that nobody catches stops the command in order and is exit code 4, not 1 or 0", async () => {
  for (
    const mistake of [
      "setTimeout(() => { throw new Error('the mistake'); }, 1);",
      "Promise.reject(new Error('the mistake'));",
    ]
  ) {
    // One command that would go on for ever, one that answers "not there", one that succeeds.
    for (
      const [rest, told] of [
        [
          "await new Promise((_, reject) => context.signal.addEventListener('abort', () => " +
          "{ context.stdout('cleaned up'); reject(context.signal.reason); }));",
          "cleaned up",
        ],
        ["await new Promise((go) => setTimeout(go, 50)); return 1;", ""],
        ["await new Promise((go) => setTimeout(go, 50)); return 0;", ""],
      ] as const
    ) {
      await inDirectory(async (directory) => {
        const program = await programOf(directory, `${mistake} ${rest}`);
        await inBoth([program], {}, ({ code, stdout, stderr }, runtime) => {
          assert.equal(code, 4, `${runtime}: ${stderr}`);
          assert.equal(stdout, told, runtime);
          assert.match(stderr, /CRITICAL: Internal error, please report it: the mistake/, runtime);
        });
      });
    }
  }
});

Deno.test("a full disk under the log does not keep a WAL file from being archived", async () => {
  await inDirectory(async (directory) => {
    const wal = join(directory, "000000010000000000000001");
    await writeFile(wal, new Uint8Array(1000));
    const full = openSync("/dev/full", "w");
    try {
      const words = ["main.ts", "wal-archive", "-vv", `file://${directory}`, "main", wal];
      await inBoth(words, { stderr: full }, async ({ code }, runtime) => {
        assert.equal(code, 0, runtime);
        const folder = join(directory, "main", "wals", "0000000100000000");
        assert.deepEqual(await readdir(folder), ["000000010000000000000001"], runtime);
        await rm(join(directory, "main"), { recursive: true });
      });
    } finally {
      closeSync(full);
    }
  });
});

Deno.test("output that can't be written is a failure", async () => {
  await inDirectory(async (directory) => {
    const full = openSync("/dev/full", "w");
    try {
      for (
        const words of [["backup-list", `file://${directory}`, "main"], ["--help"], [
          "backup",
          "--help",
        ]]
      ) {
        await inBoth(["main.ts", ...words], { stdout: full }, ({ code, stderr }, runtime) => {
          assert.equal(code, 4, `${runtime} ${words}`);
          assert.match(stderr, /error: Cannot write the output/i, runtime);
        });
      }
    } finally {
      closeSync(full);
    }
  });
});

Deno.test({
  name: "a uid that the system does not know, without HOME, can use S3 and PostgreSQL",
  ignore: Deno.uid() !== 0,
  fn: () =>
    inDirectory(async (directory) => {
      await chmod(directory, 0o755);
      const program = join(directory, "barman-cloud");
      await copyFile(await executablePath(), program);
      const env = {
        AWS_ACCESS_KEY_ID: "k",
        AWS_SECRET_ACCESS_KEY: "s",
        AWS_MAX_ATTEMPTS: "1",
        PGUSER: "postgres",
      };
      const nobody = { env, cwd: "/", uid: 54321, gid: 54321 };
      const s3 = ["--endpoint-url", "http://127.0.0.1:9", "s3://bucket/path", "main"];
      const list = await runProgram(program, ["backup-list", ...s3], nobody);
      assert.deepEqual([list.code, list.stdout], [4, ""]);
      assert.match(list.stderr, /connection refused/);
      const words = ["backup", "-h", "127.0.0.1", "-p", "9", `file://${directory}`, "main"];
      const backup = await runProgram(program, words, nobody);
      assert.deepEqual([backup.code, backup.stdout], [1, ""]);
      assert.match(backup.stderr, /Cannot connect to PostgreSQL as user postgres.*refused/);
    }),
});
