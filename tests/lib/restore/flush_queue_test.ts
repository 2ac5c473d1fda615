import assert from "node:assert/strict";
import { fstatSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FlushQueue } from "../../../lib/restore/flush_queue.ts";

const { signal } = new AbortController();

Deno.test("flush queue: all files are closed at the end, and only then", async () => {
  const directory = mkdtempSync(join(tmpdir(), "flush-"));
  try {
    const queue = new FlushQueue((error) => assert.fail(String(error)));
    const descriptors = Array.from(
      { length: 100 },
      (_, i) => openSync(join(directory, `${i}`), "wx"),
    );
    for (const descriptor of descriptors) queue.add(descriptor, "a file");
    assert.equal(queue.open, 100);
    await queue.next();
    assert.ok(queue.open < 100);
    await queue.end(signal);
    assert.equal(queue.open, 0);
    for (const descriptor of descriptors) assert.throws(() => fstatSync(descriptor));
  } finally {
    rmSync(directory, { recursive: true });
  }
});

Deno.test("flush queue: what can't be flushed is told by name, and the others go on", async () => {
  const failures: string[] = [];
  const queue = new FlushQueue((error) => failures.push(String(error)));
  // The system refuses to flush it: a queue that only closed files would not notice.
  for (const name of ["first", "second", "third"]) queue.add(openSync("/dev/null", "w"), name);
  await queue.end(signal);
  assert.equal(queue.open, 0);
  assert.equal(failures.length, 3);
  failures.sort();
  for (const [index, name] of ["first", "second", "third"].entries()) {
    assert.match(failures[index] ?? "", new RegExp(`RestoreError: Cannot write ${name}: `));
  }
});

Deno.test("flush queue: a signal ends the waiting", async () => {
  const controller = new AbortController();
  const queue = new FlushQueue(() => undefined);
  for (let i = 0; i < 40; i++) queue.add(openSync("/dev/null", "w"), "a file");
  controller.abort(new Error("stopped"));
  await assert.rejects(queue.end(controller.signal), /stopped/);
  await queue.end(signal);
});
