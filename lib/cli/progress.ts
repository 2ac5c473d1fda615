/**
 * How far a long job is: drawn in place when stderr is a terminal, else a log line a minute at INFO.
 */
import type { Progress, ProgressListener } from "../progress.ts";
import type { CommandContext } from "./command.ts";
import { withoutControls } from "./printable.ts";
import { readableSize } from "./table.ts";

export interface ProgressDisplay {
  readonly listener: ProgressListener;
  /** Remove what was drawn; later calls of the listener do nothing. */
  stop(): void;
}

const REDRAW_MS = 250;
const LOG_EVERY_MS = 60_000;
/** The rate is that of about the last half minute, so that it follows changes. */
const RATE_WINDOW_MS = 30_000;

/** @param label what the job is called: `Backup 20260115T103000` */
export function startProgress(
  context: Pick<CommandContext, "log" | "stderr" | "stderrIsTerminal" | "now">,
  label: string,
): ProgressDisplay {
  const { log, stderr, now } = context;
  const drawn = context.stderrIsTerminal && log.shows("WARNING");
  const samples: { time: number; bytes: number }[] = [];
  let latest: Progress | undefined;
  let visible = false;

  const tick = () => {
    if (latest === undefined) return;
    const time = now().getTime();
    samples.push({ time, bytes: latest.doneBytes });
    while (samples.length > 2 && time - (samples[0]?.time ?? time) > RATE_WINDOW_MS) {
      samples.shift();
    }
    // It names tablespaces, as a backup.info does.
    const state = withoutControls(progressText(latest, rateOf(samples)));
    const text = `${label}: ${state}`;
    if (drawn) {
      // 0 is what a terminal says that does not know.
      const width = Math.max((process.stderr.columns || 80) - 1, 20);
      stderr(`\r\x1b[K${text.length <= width ? text : state.slice(0, width)}`);
      visible = true;
    } else log.info(text);
  };
  const timer = setInterval(tick, drawn ? REDRAW_MS : LOG_EVERY_MS);
  timer.unref();
  return {
    listener: (progress) => {
      latest = progress;
    },
    stop: () => {
      clearInterval(timer);
      latest = undefined;
      if (visible) stderr("\r\x1b[K");
      visible = false;
    },
  };
}

/** Bytes per second between the oldest and the newest sample; null while there is only one. */
export function rateOf(
  samples: readonly { readonly time: number; readonly bytes: number }[],
): number | null {
  const first = samples[0];
  const last = samples[samples.length - 1];
  if (first === undefined || last === undefined || last.time <= first.time) return null;
  return (last.bytes - first.bytes) * 1000 / (last.time - first.time);
}

/** `copying data, 1.2 GiB of 4.0 GiB (30%), 85.0 MiB/s, 33 s left`. */
export function progressText(progress: Progress, rate: number | null): string {
  const { activity, doneBytes, totalBytes } = progress;
  const parts = [activity];
  if (totalBytes !== null && totalBytes > 0) {
    // The total is an estimate made before the job: the source goes on changing.
    const share = Math.min(99, Math.floor(doneBytes * 100 / totalBytes));
    parts.push(`${readableSize(doneBytes)} of ${readableSize(totalBytes)} (${share}%)`);
  } else parts.push(readableSize(doneBytes));
  if (rate !== null && rate > 0) {
    parts.push(`${readableSize(rate)}/s`);
    if (totalBytes !== null && totalBytes > doneBytes) {
      parts.push(`${durationText((totalBytes - doneBytes) / rate)} left`);
    }
  }
  return parts.join(", ");
}

/** `1 h 05 min`, `4 min 10 s`, `33 s`. */
export function durationText(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (n: number) => String(n).padStart(2, "0");
  if (whole >= 3600) {
    return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole % 3600 / 60))} min`;
  }
  if (whole >= 60) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${whole} s`;
}
