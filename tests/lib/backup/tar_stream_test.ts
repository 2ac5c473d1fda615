import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { constants } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openFile, systemOwnerNames } from "../../../lib/backup/members.ts";
import { OpenedFile } from "../../../lib/backup/opened_file.ts";
import { tarStream } from "../../../lib/backup/tar_stream.ts";
import { TarReader } from "../../../lib/tar/reader.ts";

/** Tells what happens to it. */
class WatchedFile extends OpenedFile {
  begun = 0;
  ended = 0;
  closed = false;

  override async read(
    buffer: Uint8Array,
    start: number,
    length: number,
    position: number | null,
  ): Promise<number> {
    this.begun++;
    const count = await super.read(buffer, start, length, position);
    this.ended++;
    return count;
  }

  override close(): void {
    assert.equal(this.ended, this.begun, "closed while it was being read");
    this.closed = true;
    super.close();
  }
}

async function streamOf(
  content: Uint8Array,
  use: (file: WatchedFile, chunks: AsyncGenerator<Uint8Array>) => Promise<void>,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "tar-stream-"));
  try {
    const path = join(directory, "16384");
    await writeFile(path, content);
    const opened = await openFile(path, "base/5/16384", await systemOwnerNames());
    assert.ok(opened?.content.kind === "opened");
    opened.content.file.close();
    const file = new WatchedFile(path, constants.O_RDONLY);
    const chunks = tarStream(
      { member: opened.member, content: { kind: "opened", file, path } },
      () => Promise.resolve(undefined),
      {
        isFull: () => false,
        onContent: () => {},
        onShrunk: (message) => assert.fail(message),
        signal: new AbortController().signal,
      },
    );
    await use(file, chunks);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

Deno.test("the next piece of a file is read while one is stored, and into other memory", async () => {
  const content = Uint8Array.from({ length: 2_500_000 }, (_, i) => (i >>> 8) ^ i);
  await streamOf(content, async (file, chunks) => {
    const pieces: Uint8Array[] = [];
    for await (const chunk of chunks) {
      const atOnce = chunk.slice();
      const more = pieces.length * chunk.length < content.length - 2 * chunk.length;
      if (more) assert.equal(file.begun, pieces.length + 2);
      while (file.ended < file.begun) await new Promise((resolve) => setTimeout(resolve, 1));
      assert.equal(Buffer.compare(chunk, atOnce), 0);
      pieces.push(atOnce);
    }
    assert.ok(file.closed);
    const reader = new TarReader(ReadableStream.from(pieces));
    assert.equal((await reader.next())?.size, content.length);
    const stored: Uint8Array[] = [];
    for (let part = await reader.read(); part !== null; part = await reader.read()) {
      stored.push(part);
    }
    assert.equal(Buffer.compare(Buffer.concat(stored), content), 0);
  });
});

Deno.test("left in the middle of a file, it is closed when the read under way has ended", async () => {
  await streamOf(new Uint8Array(3_000_000), async (file, chunks) => {
    await chunks.next();
    await chunks.next();
    assert.ok(file.begun > file.ended);
    await chunks.return(undefined);
    assert.ok(file.closed);
  });
});
