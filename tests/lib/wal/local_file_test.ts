import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openLocalFile, writeDurably } from "../../../lib/wal/local_file.ts";
import { pieces, walBytes } from "./stores.ts";

async function withDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await realpath(await mkdtemp(join(tmpdir(), "barman-cloud-file-")));
  try {
    await test(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk.slice());
  return Buffer.concat(chunks);
}

Deno.test("local file: is read whole, also through a symbolic link", () =>
  withDirectory(async (directory) => {
    for (const size of [0, 1, 256 * 1024, 1_000_000, 3_500_000]) {
      const path = join(directory, `f${size}`);
      await writeFile(path, walBytes(size));
      await symlink(path, `${path}.link`);
      for (const reuse of [false, true, "here", new Uint8Array(3_500_000)] as const) {
        const file = await openLocalFile(`${path}.link`);
        assert.equal(file.size, size);
        assert.ok(Buffer.from(walBytes(size)).equals(await collect(file.read(reuse))));
        await file.close();
      }
    }
  }));

Deno.test("local file: read in this thread it lets others have their turn", () =>
  withDirectory(async (directory) => {
    const path = join(directory, "wal");
    await writeFile(path, walBytes(8_000_000));
    const file = await openLocalFile(path);
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    try {
      for await (const chunk of file.read("here")) {
        const until = performance.now() + 2;
        while (performance.now() < until) assert.ok(chunk.length > 0);
      }
    } finally {
      clearInterval(timer);
      await file.close();
    }
    assert.ok(turns >= 4, `${turns} turns`);
  }));

Deno.test("local file: one that changes its size while read is an error", () =>
  withDirectory(async (directory) => {
    const path = join(directory, "wal");
    for (
      const [change, reason] of [
        [() => truncate(path, 300_000), /ended after 300000 of 1000000 bytes/],
        [() => appendFile(path, "x"), /changed from 1000000 to 1000001 bytes/],
      ] as const
    ) {
      await writeFile(path, walBytes(1_000_000));
      const file = await openLocalFile(path);
      const content = file.read();
      await content.next();
      await change();
      await assert.rejects(collect(content), reason);
      await file.close();
    }
  }));

Deno.test("local file: what is not a regular file is refused, a pipe without waiting", () =>
  withDirectory(async (directory) => {
    await assert.rejects(
      openLocalFile(join(directory, "none")),
      /Cannot read .*none: no such file/,
    );
    await assert.rejects(openLocalFile(directory), /it is not a regular file/);
    const mkfifo = spawn("mkfifo", [join(directory, "pipe")]);
    await once(mkfifo, "exit");
    await assert.rejects(openLocalFile(join(directory, "pipe")), /it is not a regular file/);
  }));

Deno.test("durable write: new, over an old file, by a relative path, through a link", () =>
  withDirectory(async (directory) => {
    const bytes = walBytes(700_000);
    const path = join(directory, "RECOVERYXLOG");
    assert.equal(await writeDurably(path, pieces(bytes, 99_999)), 700_000);
    assert.equal((await stat(path)).mode & 0o007, 0);
    assert.deepEqual(await readFile(path), Buffer.from(bytes));

    await writeDurably(path, pieces(walBytes(10), 10));
    assert.deepEqual(await readFile(path), Buffer.from(walBytes(10)));

    await mkdir(join(directory, "elsewhere"));
    await symlink("elsewhere/target", join(directory, "link"));
    await writeFile(join(directory, "elsewhere/target"), "old");
    await writeDurably(join(directory, "link"), pieces(walBytes(5), 5));
    assert.deepEqual(await readFile(join(directory, "elsewhere/target")), Buffer.from(walBytes(5)));

    await writeDurably(join(directory, "empty"), pieces(walBytes(0), 1));
    assert.equal((await stat(join(directory, "empty"))).size, 0);
    assert.deepEqual((await readdir(directory)).sort(), [
      "RECOVERYXLOG",
      "elsewhere",
      "empty",
      "link",
    ]);
    assert.deepEqual(await readdir(join(directory, "elsewhere")), ["target"]);
  }));

Deno.test("durable write: whatever fails, the destination stays and nothing is left", () =>
  withDirectory(async (directory) => {
    const path = join(directory, "RECOVERYXLOG");
    const controller = new AbortController();
    async function* breaking(how: () => void): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(walBytes(100_000));
      // The temporary file is there and hidden.
      const hidden = (await readdir(directory)).filter((name) => name !== "RECOVERYXLOG");
      assert.match(hidden.join(), /^\.RECOVERYXLOG\.\d+-[0-9a-f]{8}\.barman-cloud$/);
      how();
      yield walBytes(1);
    }
    const failures: [() => void, AbortSignal | undefined, RegExp][] = [
      [
        () => {
          throw new Error("connection lost");
        },
        undefined,
        /connection lost/,
      ],
      [() => controller.abort(new Error("Stopped by SIGTERM")), controller.signal, /SIGTERM/],
    ];
    for (const before of [null, "old content"]) {
      if (before !== null) await writeFile(path, before);
      for (const [how, signal, reason] of failures) {
        await assert.rejects(writeDurably(path, breaking(how), { signal }), reason);
        assert.deepEqual(await readdir(directory), before === null ? [] : ["RECOVERYXLOG"]);
        if (before !== null) assert.equal(await readFile(path, "utf8"), before);
      }
    }
  }));

Deno.test("durable write: destinations that can't be written", () =>
  withDirectory(async (directory) => {
    const some = () => pieces(walBytes(10), 10);
    await mkdir(join(directory, "folder"));
    await writeFile(join(directory, "file"), "");
    await assert.rejects(writeDurably(join(directory, "folder"), some()), /not a regular file/);
    await assert.rejects(writeDurably("/dev/null", some()), /not a regular file/);
    await assert.rejects(
      writeDurably(join(directory, "none/x"), some()),
      /Cannot write .*: no such file or directory/,
    );
    await assert.rejects(
      writeDurably(join(directory, "file/x"), some()),
      /Cannot write .*: not a directory/,
    );
    assert.deepEqual((await readdir(directory)).sort(), ["file", "folder"]);
  }));

Deno.test("durable write: leftovers of killed processes go, those of live ones stay", () =>
  withDirectory(async (directory) => {
    const gone = spawn("true");
    await once(gone, "exit");
    const minutesAgo = async (name: string, minutes: number) => {
      const time = new Date(Date.now() - minutes * 60_000);
      await writeFile(join(directory, name), "half");
      await utimes(join(directory, name), time, time);
    };
    const dead = `${gone.pid}-00000001.barman-cloud`;
    const alive = `${process.ppid}-00000002.barman-cloud`;
    await minutesAgo(`.RECOVERYXLOG.${dead}`, 2);
    await minutesAgo(`.RECOVERYXLOG.${alive}`, 61);
    const kept = [
      [`.RECOVERYXLOG.${process.ppid}-00000003.barman-cloud`, 2],
      [`.RECOVERYXLOG.${gone.pid}-00000004.barman-cloud`, 0],
      [`.RECOVERYHISTORY.${dead}`, 2],
      [".RECOVERYXLOG.mine", 1000],
    ] as const;
    for (const [name, minutes] of kept) await minutesAgo(name, minutes);
    await writeDurably(join(directory, "RECOVERYXLOG"), pieces(walBytes(10), 10));
    assert.deepEqual(
      (await readdir(directory)).sort(),
      [...kept.map(([name]) => name), "RECOVERYXLOG"].sort(),
    );
  }));
