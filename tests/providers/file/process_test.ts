/** What only separate processes, users and file systems show. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, readdir, stat } from "node:fs/promises";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isReservedName } from "../../../providers/file/keys.ts";
import { openFileStore } from "../../../providers/file/store.ts";
import { rejectsWith } from "../../conformance/checks.ts";
import { bytes, contentOf, namesIn, pattern } from "../../conformance/suite.ts";
import { temporaryStore } from "./temporary_store.ts";

const CHILD = fileURLToPath(new URL("./child.ts", import.meta.url));

Deno.test("kill -9 while writing leaves whole objects and files that nobody sees", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  const names = new Set<string>();
  for (const delay of [0, 3, 7, 13]) {
    await killAfter(startChild("put", root), delay);
    const content = await contentOf(store, "d/overwritten");
    assert.equal(content.length, 8_000_000);
    assert.ok(content.every((byte) => byte === content[0]), "one version only");
  }
  await killAfter(startChild("multipart", root), 20);
  for (const name of await readdir(`${root}/d`)) names.add(name);
  assert.deepEqual(await namesIn(store, ""), ["d/overwritten"]);
  assert.deepEqual([...names].filter((name) => !isReservedName(name)), ["overwritten"]);
  assert.ok(names.size > 1, "the killed upload left its temporary file");
  await store.put("d/overwritten", bytes("again"));
  assert.deepEqual(await contentOf(store, "d/overwritten"), bytes("again"));
});

Deno.test("several processes may write and delete in the same directories", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  await Promise.all(["1", "2", "3"].map((name) => finished(startChild("churn", root, name))));
  assert.deepEqual(await namesIn(store, ""), ["kept/1", "kept/2", "kept/3"]);
  assert.deepEqual(await readdir(root), ["kept"], "no directory and no temporary file is left");
});

Deno.test("what we may not read or write is denied, not missing", async () => {
  await using subject = await temporaryStore();
  await mkdir(`${subject.root}/store`);
  await chmod(subject.root, 0o755);
  await chmod(`${subject.root}/store`, 0o777);
  await finished(startChild("denied", `${subject.root}/store`));
});

const tmpfs = smallFileSystem();
Deno.test({
  name: "a full disk is told, and leaves nothing behind",
  ignore: tmpfs === undefined,
  async fn() {
    if (tmpfs === undefined) return;
    await using subject = await temporaryStore();
    const mount = `${subject.root}/full`;
    await mkdir(mount);
    tmpfs.mount(mount);
    try {
      const { store } = await openFileStore(`file://${mount}`, { env: {} });
      await store.put("d/fits", pattern(1_000_000));
      const error = await rejectsWith(store.put("d/large", pattern(8_000_000)), "other");
      assert.equal(error.code, "ENOSPC");
      assert.match(error.message, /no space is left on the file system/);
      await rejectsWith(store.put("d/fits", pattern(8_000_000)), "other");

      const upload = await store.startMultipart("e/x");
      const first = await upload.uploadPart(1, pattern(1_000_000));
      await rejectsWith(upload.uploadPart(2, pattern(8_000_000)), "other");
      await upload.abort();
      await rejectsWith(upload.complete([first]), "not-found");

      assert.deepEqual(await namesIn(store, ""), ["d/fits"]);
      assert.deepEqual(await readdir(`${mount}/d`), ["fits"]);
      assert.deepEqual(await contentOf(store, "d/fits"), pattern(1_000_000));
      await store.put("d/small", bytes("works again"));
      assert.equal((await stat(`${mount}/d/small`)).size, 11);
      await store.close();
    } finally {
      tmpfs.unmount(mount);
    }
  },
});

function startChild(...args: string[]): ChildProcess {
  return spawn(process.execPath, ["run", "-A", "--no-check", CHILD, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
}

async function finished(child: ChildProcess): Promise<void> {
  child.stdout?.resume();
  const [code, signal] = await once(child, "close");
  assert.deepEqual([code, signal], [0, null]);
}

/** Kill a child some milliseconds after it has said that it wrote something. */
async function killAfter(child: ChildProcess, delay: number): Promise<void> {
  const closed = once(child, "close");
  if (child.stdout === null) throw new Error("The child has no stdout");
  await once(child.stdout, "data");
  child.stdout.resume();
  await sleep(delay);
  child.kill("SIGKILL");
  await closed;
}

interface SmallFileSystem {
  readonly mount: (directory: string) => void;
  readonly unmount: (directory: string) => void;
}

/** A tmpfs of 4 MiB, where this user may mount one. */
function smallFileSystem(): SmallFileSystem | undefined {
  const mount = (directory: string) => {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", directory], { stdio: "pipe" });
  };
  const unmount = (directory: string) => {
    execFileSync("umount", [directory], { stdio: "pipe" });
  };
  try {
    // In a mount namespace of its own: only to see whether it is allowed.
    execFileSync("unshare", ["-m", "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "/mnt"], {
      stdio: "pipe",
    });
    return { mount, unmount };
  } catch {
    console.warn(
      "SKIPPED: full-disk test of the local store; run it as root with mount(8) allowed",
    );
    return undefined;
  }
}
