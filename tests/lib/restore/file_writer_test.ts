import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileWriter, WriteBuffers } from "../../../lib/restore/file_writer.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

function counted(size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => (i * 7 + (i >>> 8) + (i >>> 16)) & 255);
}

async function inDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "writer-"));
  try {
    await use(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

Deno.test("file writer: files of any size come whole, in pieces of any size", () =>
  inDirectory(async (directory) => {
    const buffers = new WriteBuffers(2);
    for (const size of [0, 1, 64 * KIB, 64 * KIB + 1, 512 * KIB, 512 * KIB + 1, 5 * MIB + 17]) {
      for (const pieceSize of [1000, 128 * KIB, 2 * MIB]) {
        const path = join(directory, `${size}-${pieceSize}`);
        const content = counted(size);
        const descriptor = openSync(path, "wx");
        const writer = new FileWriter(descriptor, buffers);
        for (let at = 0; at < size; at += pieceSize) {
          const piece = content.slice(at, at + pieceSize);
          await writer.write(piece);
          // It is not needed any more.
          piece.fill(0);
        }
        await writer.end();
        closeSync(descriptor);
        assert.ok(readFileSync(path).equals(content), path);
      }
    }
  }));

Deno.test("file writer: several files share the memory", () =>
  inDirectory(async (directory) => {
    const buffers = new WriteBuffers(2);
    const content = counted(3 * MIB);
    await Promise.all(["a", "b", "c", "d", "e"].map(async (name) => {
      const descriptor = openSync(join(directory, name), "wx");
      const writer = new FileWriter(descriptor, buffers);
      // Each keeps none of it when it has nothing to write.
      for (let at = 0; at < content.length; at += 512 * KIB) {
        await writer.write(content.subarray(at, at + 512 * KIB));
      }
      await writer.end();
      closeSync(descriptor);
    }));
    for (const name of ["a", "b", "c", "d", "e"]) {
      assert.ok(readFileSync(join(directory, name)).equals(content), name);
    }
  }));

Deno.test("file writer: a full disk is told, and the memory is free again", async () => {
  const buffers = new WriteBuffers(2);
  for (const size of [10, 3 * MIB]) {
    const descriptor = openSync("/dev/full", "w");
    const writer = new FileWriter(descriptor, buffers);
    await assert.rejects(async () => {
      await writer.write(counted(size));
      await writer.end();
    }, /ENOSPC|No space left/);
    await writer.discard();
    closeSync(descriptor);
    const free = [await buffers.take(), await buffers.take()];
    for (const buffer of free) buffers.give(buffer);
  }
});

Deno.test("file writer: ended after a failure it tells it, and keeps no memory", async () => {
  const buffers = new WriteBuffers(2);
  const descriptor = openSync("/dev/full", "w");
  const writer = new FileWriter(descriptor, buffers);
  // The first buffer is being written, the second has begun to fill.
  await writer.write(counted(512 * KIB + 10));
  const first = await buffers.take();
  buffers.give(first);
  await assert.rejects(writer.end(), /ENOSPC|No space left/);
  closeSync(descriptor);
  for (const buffer of [await buffers.take(), await buffers.take()]) buffers.give(buffer);
});
