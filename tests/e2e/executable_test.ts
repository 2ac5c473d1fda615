/** What the executable promises about itself: names, versions, and that its surroundings change nothing. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { walSegment } from "../lib/wal/wal_files.ts";
import { skipUnless } from "../skips.ts";
import { barmanCloud, executablePath, runProgram } from "./executable.ts";

const NINE = [
  "backup",
  "backup-delete",
  "backup-keep",
  "backup-list",
  "backup-show",
  "check-wal-archive",
  "restore",
  "wal-archive",
  "wal-restore",
];

async function inTemporaryDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "barman-cloud-test-"));
  chmodSync(directory, 0o755);
  try {
    await body(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

Deno.test("links makes the nine names, and each is the command of its name", async () => {
  await inTemporaryDirectory(async (directory) => {
    const made = await barmanCloud(["links", directory]);
    assert.deepEqual([made.code, made.stdout, made.stderr], [0, "", ""]);
    assert.deepEqual(readdirSync(directory).sort(), NINE.map((name) => `barman-cloud-${name}`));
    for (const name of NINE) {
      const link = join(directory, `barman-cloud-${name}`);
      assert.equal(readlinkSync(link), await executablePath());
      const version = await runProgram(link, ["--version"]);
      assert.deepEqual([version.code, version.stdout, version.stderr], [
        0,
        `barman-cloud-${name} 3.21.0\n`,
        "",
      ]);
      const usage = await runProgram(link, ["--no-such-option"]);
      assert.equal(usage.code, 3);
      assert.equal(usage.stdout, "");
      assert.match(usage.stderr, new RegExp(`^usage: barman-cloud-${name} `));
      assert.match(usage.stderr, new RegExp(`\nbarman-cloud-${name}: error: `));
    }
    // A file that is no link stays; again over links is fine.
    assert.equal((await barmanCloud(["links", directory])).code, 0);
    rmSync(join(directory, "barman-cloud-backup"));
    writeFileSync(join(directory, "barman-cloud-backup"), "somebody's script");
    const refused = await barmanCloud(["links", directory]);
    assert.equal(refused.code, 4);
    assert.match(refused.stderr, /barman-cloud-backup: a file of that name is there/);
    assert.equal((await barmanCloud(["links", "--force", directory])).code, 0);
  });
});

Deno.test("the first word chooses the command as well, and --help of each has examples", async () => {
  for (const name of NINE) {
    const help = await barmanCloud([name, "--help"], { env: { COLUMNS: "100" } });
    assert.equal(help.code, 0);
    assert.equal(help.stderr, "");
    assert.match(help.stdout, new RegExp(`^usage: barman-cloud ${name} `));
    assert.match(help.stdout, /\nexamples:\n {2}# /);
    assert.doesNotMatch(help.stdout, /PROGRAM|undefined|%%/);
    const version = await barmanCloud([name, "--version"]);
    assert.equal(version.stdout, `barman-cloud-${name} 3.21.0\n`);
  }
  const unknown = await barmanCloud(["no-such-command"]);
  assert.equal(unknown.code, 3);
  assert.equal(unknown.stdout, "");
  assert.match(unknown.stderr, /there is no command 'no-such-command'/);
});

Deno.test("version tells ours, the runtime's and the compatibility version", async () => {
  const { code, stdout } = await barmanCloud(["version"]);
  assert.equal(code, 0);
  assert.match(
    stdout,
    /^barman-cloud \d+\.\d+\.\d+\nruntime Bun \d+\.\d+\.\d+\ncompatible with Barman 3\.21\.0\n$/,
  );
  const json: unknown = JSON.parse((await barmanCloud(["version", "--json"])).stdout);
  assert.deepEqual(Object.keys(json as object), ["version", "runtime", "compatible_with_barman"]);
});

/** Each loads the code of its provider and then finds that nobody listens. */
const STORES_WITHOUT_SERVER = [
  {
    words: ["--endpoint-url", "http://127.0.0.1:2", "s3://b/p"],
    env: { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "bbbbbb", AWS_MAX_ATTEMPTS: "1" },
  },
  {
    words: ["--cloud-provider", "azure-blob-storage", "http://127.0.0.1:2/a/c"],
    env: {
      AZURE_STORAGE_CONNECTION_STRING: "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=" +
        `${btoa("k".repeat(64))};BlobEndpoint=http://127.0.0.1:2/a;`,
    },
  },
  { words: ["gs://b/p"], env: { STORAGE_EMULATOR_HOST: "http://127.0.0.1:2" } },
];

Deno.test("files in the working directory that Bun would read change nothing", async () => {
  await inTemporaryDirectory(async (directory) => {
    const trap = join(directory, "trapped");
    const script = `require("node:fs").writeFileSync(${JSON.stringify(trap)}, "x");`;
    writeFileSync(join(directory, "trap.js"), script);
    writeFileSync(join(directory, "trap.ts"), script);
    writeFileSync(
      join(directory, "bunfig.toml"),
      'preload = ["./trap.js"]\n[run]\npreload = ["./trap.js"]\n[define]\n"process.argv0" = "\'x\'"\n',
    );
    writeFileSync(
      join(directory, ".env"),
      "AWS_ENDPOINT_URL=http://127.0.0.1:1\nCOLUMNS=20\nBUN_OPTIONS=--preload=./trap.js\n",
    );
    for (const name of [".env.local", ".env.production", ".env.development"]) {
      cpSync(join(directory, ".env"), join(directory, name));
    }
    writeFileSync(
      join(directory, "package.json"),
      '{"name":"x","type":"commonjs","imports":{"#a":"./trap.js"},"main":"trap.js"}',
    );
    writeFileSync(join(directory, "tsconfig.json"), '{"compilerOptions":{"paths":{"*":["./*"]}}}');
    // The last ones are not ours: packages of ours look for them, and can do without.
    const packages = ["argparse", "postgres", "@aws-sdk/client-s3"];
    for (const name of [...packages, "@aws-sdk/signature-v4-crt", "supports-color", "kerberos"]) {
      mkdirSync(join(directory, "node_modules", name), { recursive: true });
      writeFileSync(join(directory, "node_modules", name, "index.js"), script);
      writeFileSync(join(directory, "node_modules", name, "package.json"), '{"main":"index.js"}');
    }
    const plain = await barmanCloud(["backup-list", "--help"], { cwd: "/" });
    const trapped = await barmanCloud(["backup-list", "--help"], { cwd: directory });
    assert.deepEqual(trapped, plain);
    mkdirSync(join(directory, "store"));
    const url = `file://${directory}/store`;
    const listed = await barmanCloud(["backup-list", url, "main"], { cwd: directory });
    assert.equal(listed.code, 0, listed.stderr);
    // An endpoint from .env would be another one; the SDKs are loaded on the way.
    for (const { words, env } of STORES_WITHOUT_SERVER) {
      const tested = await barmanCloud(["backup-list", "-t", ...words, "main"], {
        cwd: directory,
        env,
      });
      assert.equal(tested.code, 2, tested.stderr);
      assert.match(tested.stderr, /127\.0\.0\.1:2/);
    }
    assert.equal(existsSync(trap), false, "a file of the working directory was executed");
  });
});

Deno.test("it runs with an empty environment, as any user, from a directory it can't read", async () => {
  const root = process.getuid?.() === 0;
  await inTemporaryDirectory(async (directory) => {
    const copy = join(directory, "barman-cloud");
    cpSync(await executablePath(), copy);
    chmodSync(copy, 0o755);
    const result = await runProgram(copy, ["backup-show", "--version"], {
      cwd: "/",
      env: { PATH: "/nowhere", HOME: "/nowhere", TMPDIR: "/nowhere" },
      ...(root ? { uid: 54321, gid: 54321 } : {}),
    });
    assert.deepEqual([result.code, result.stdout, result.stderr], [
      0,
      "barman-cloud-backup-show 3.21.0\n",
      "",
    ]);
  });
});

const canUnshare = spawnSync("unshare", ["-m", "true"]).status === 0;
Deno.test({
  name: "it archives and restores a WAL with every codec on a read-only root without /tmp",
  ignore: skipUnless(
    canUnshare,
    "a read-only root file system",
    "run as root with util-linux's unshare",
  ),
  fn: async () => {
    await inTemporaryDirectory(async (directory) => {
      const name = "000000010000000000000001";
      writeFileSync(join(directory, name), walSegment(name));
      mkdirSync(join(directory, "store"));
      cpSync(await executablePath(), join(directory, "barman-cloud"));
      const script = [
        "set -e",
        `mount --bind ${directory} /mnt`,
        "mount -o remount,ro,bind /",
        "mount -t tmpfs -o ro none /tmp",
        "cd /mnt",
        "for codec in none gzip bzip2 xz snappy zstd lz4; do",
        '  option="--$codec"; [ $codec = none ] && option=',
        `  env -i ./barman-cloud wal-archive $option file:///mnt/store $codec ${name}`,
        `  env -i ./barman-cloud wal-restore file:///mnt/store $codec ${name} out`,
        `  cmp ${name} out`,
        "done",
        "echo ok",
      ].join("\n");
      const result = await runProgram("/usr/bin/unshare", ["-m", "sh", "-c", script], {
        env: { PATH: "/usr/bin:/bin:/usr/sbin:/sbin" },
      });
      assert.deepEqual([result.code, result.stdout, result.stderr], [0, "ok\n", ""]);
    });
  },
});

Deno.test("two builds of the same sources are byte-identical", async () => {
  await inTemporaryDirectory(async (directory) => {
    const builds = [];
    for (const name of ["first", "second"]) {
      const output = join(directory, name);
      const result = await runProgram(Deno.execPath(), [
        "run",
        "-A",
        join(import.meta.dirname ?? "", "../../scripts/compile.ts"),
        "--output",
        output,
      ], { env: { ...Deno.env.toObject(), NO_COLOR: "1" }, timeout: 240_000 });
      assert.equal(result.code, 0, result.stderr);
      builds.push(createHash("sha256").update(readFileSync(output)).digest("hex"));
    }
    assert.equal(builds[0], builds[1]);
  });
});

const strace = existsSync("/usr/bin/strace");
Deno.test({
  name: "at start it opens no file of its surroundings and no socket",
  ignore: skipUnless(strace, "file accesses at start", "apt-get install strace"),
  fn: async () => {
    await inTemporaryDirectory(async (directory) => {
      const trace = join(directory, "trace");
      const executable = await executablePath();
      const result = await runProgram("/usr/bin/strace", [
        "-f",
        "-o",
        trace,
        "-e",
        "trace=%file,%network",
        executable,
        "wal-archive",
        "--version",
      ], { cwd: directory, env: { PATH: "/nowhere", HOME: directory } });
      assert.equal(result.code, 0, result.stderr);
      const lines = (await Deno.readTextFile(trace)).split("\n");
      const sockets = lines.filter((line) => /\b(connect|bind|sendto)\(/.test(line));
      assert.deepEqual(sockets, []);
      const opened = lines.flatMap((line) => {
        const match = /open(?:at)?\((?:AT_FDCWD, )?"([^"]*)".*= \d+$/.exec(line);
        return match?.[1] === undefined ? [] : [match[1]];
      });
      const foreign = opened.filter((path) =>
        path !== executable && // The runtime's own: the loader, the kernel's tables, the time zone.
        !/^\/(proc|sys|dev|lib|lib64|usr\/lib|etc\/ld\.so|etc\/localtime)/.test(path)
      );
      assert.deepEqual(foreign, []);
    });
  },
});

Deno.test({
  name: "in a data directory it looks at nothing that it was not told of, whatever the store",
  ignore: skipUnless(strace, "file accesses of the providers", "apt-get install strace"),
  fn: async () => {
    await inTemporaryDirectory(async (directory) => {
      const cwd = join(directory, "data");
      mkdirSync(cwd);
      const trace = join(directory, "trace");
      for (const { words, env } of STORES_WITHOUT_SERVER) {
        const result = await runProgram("/usr/bin/strace", [
          ...["-f", "-s", "1000", "-o", trace, "-e", "trace=%file"],
          ...[await executablePath(), "backup-list", "-t", ...words, "main"],
        ], { cwd, env });
        assert.equal(result.code, 2, result.stderr);
        const paths = [...(await Deno.readTextFile(trace)).matchAll(/"([^"]*)"/g)]
          .map(([, path = ""]) => path);
        assert.ok(paths.length > 0);
        const below = paths.filter((path) =>
          path.startsWith(`${directory}/`) && path !== cwd ||
          /node_modules|bunfig|package\.json|\.env/.test(path)
        );
        assert.deepEqual(below, [], words.join(" "));
      }
    });
  },
});

Deno.test("usage errors repeat the words of a command line, but no secret in them and nothing a terminal obeys", async () => {
  const url = "s3://AKIA:hunter22secret@bucket/p";
  for (
    const words of [
      [url],
      ["backup", url, "main", url],
      ["backup", "--password=hunter22secret", url, "main", "-d", "password=hunter22secret", "x"],
      ["wal-archive", url, "main", "000000010000000000000001", url],
      ["wal-archive", url, "main", "000000010000000000000001", "--\u001b[31mred"],
    ]
  ) {
    const { code, stdout, stderr } = await barmanCloud(words);
    assert.equal(code, 3, stderr);
    assert.equal(stdout, "");
    assert.match(stderr, /usage: /);
    assert.ok(!stderr.includes("hunter22") && !stderr.includes("\u001b"), stderr);
  }
});
