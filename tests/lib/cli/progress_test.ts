import assert from "node:assert/strict";
import { durationText, progressText, rateOf, startProgress } from "../../../lib/cli/progress.ts";
import { createLogger } from "../../../lib/cli/log.ts";

Deno.test("progress tells activity, done of total, rate and time left", () => {
  const half = { activity: "copying data", doneBytes: 512 * 1048576, totalBytes: 1073741824 };
  assert.equal(
    progressText(half, 64 * 1048576),
    "copying data, 512.0 MiB of 1.0 GiB (50%), 64.0 MiB/s, 8 s left",
  );
  assert.equal(progressText(half, null), "copying data, 512.0 MiB of 1.0 GiB (50%)");
  assert.equal(
    progressText({ activity: "copying", doneBytes: 10, totalBytes: null }, 0),
    "copying, 10 B",
  );
  // The database has grown beyond the estimate: never "105%", no time left.
  assert.equal(
    progressText({ activity: "copying", doneBytes: 2048, totalBytes: 1024 }, 1024),
    "copying, 2.0 KiB of 1.0 KiB (99%), 1.0 KiB/s",
  );
});

Deno.test("texts of durations", () => {
  assert.deepEqual([0.2, 59.6, 61, 3600, 90061].map(durationText), [
    "0 s",
    "1 min 00 s",
    "1 min 01 s",
    "1 h 00 min",
    "25 h 01 min",
  ]);
  assert.equal(rateOf([{ time: 0, bytes: 0 }]), null);
  assert.equal(rateOf([{ time: 1000, bytes: 100 }, { time: 3000, bytes: 300 }]), 100);
});

Deno.test("a terminal sees it in place, and nothing is left of it; a file sees no control characters", async () => {
  for (const terminal of [true, false]) {
    const written: string[] = [];
    const log = createLogger({
      threshold: 2,
      write: (text) => written.push(text),
      redact: (text) => text,
      now: () => new Date(),
      pid: 1,
    });
    const display = startProgress({
      log,
      stderr: (text) => written.push(text),
      stderrIsTerminal: terminal,
      now: () => new Date(),
    }, "Backup X");
    display.listener({ activity: "copying", doneBytes: 1, totalBytes: null });
    await new Promise((resolve) => setTimeout(resolve, 400));
    display.stop();
    if (!terminal) assert.deepEqual(written, []);
    else {
      assert.equal(written[0], "\r\x1b[KBackup X: copying, 1 B");
      assert.equal(written.at(-1), "\r\x1b[K");
    }
  }
});
