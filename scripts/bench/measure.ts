/**
 * Costs of whole processes. The runs of the compared commands alternate (A B A B …), so that a machine whose speed
 * drifts treats them alike; what to quote are medians and ratios.
 */
import { fileURLToPath } from "node:url";
import { ensureBun } from "../servers/npm_package.ts";

export interface Candidate {
  readonly name: string;
  /** The command of a run; runs are numbered from 0, those that warm up included. */
  readonly command: readonly string[] | ((run: number) => readonly string[]);
  /** The whole environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Run before each run, not measured. */
  readonly prepare?: readonly string[] | ((run: number) => readonly string[]);
}

/** What `runner.ts` is told. */
export interface RunnerJob {
  readonly runs: number;
  readonly warmups: number;
  readonly candidates: readonly {
    readonly name: string;
    readonly runs: readonly (readonly string[])[];
    readonly prepare?: readonly (readonly string[])[];
    readonly env?: Readonly<Record<string, string>>;
    readonly cwd?: string;
  }[];
}

export interface Figures {
  readonly name: string;
  readonly wallMs: readonly number[];
  /** User and system time of all processes. */
  readonly cpuMs: readonly number[];
  /** Peak of all processes together; see `runner.ts`. */
  readonly peakMiB: readonly number[];
}

export interface MeasureOptions {
  readonly runs: number;
  readonly warmups?: number;
}

/** @throws Error when a command fails: a figure of a failed run means nothing */
export async function measure(
  candidates: readonly Candidate[],
  { runs, warmups = 1 }: MeasureOptions,
): Promise<readonly Figures[]> {
  const all = Array.from({ length: warmups + runs }, (_, run) => run);
  const ofRuns = (words: Candidate["command"]) =>
    all.map((run) => typeof words === "function" ? words(run) : words);
  const job: RunnerJob = {
    runs,
    warmups,
    candidates: candidates.map(({ command, prepare, ...rest }) => ({
      ...rest,
      runs: ofRuns(command),
      ...(prepare === undefined ? {} : { prepare: ofRuns(prepare) }),
    })),
  };
  const file = await Deno.makeTempFile({ suffix: ".json" });
  try {
    await Deno.writeTextFile(file, JSON.stringify(job));
    const runner = fileURLToPath(new URL("./runner.ts", import.meta.url));
    const { code, stdout, stderr } = await new Deno.Command(await ensureBun(), {
      args: [runner, file],
    }).output();
    if (code !== 0) {
      throw new Error(`Cannot measure: ${new TextDecoder().decode(stderr).trim()}`);
    }
    return JSON.parse(new TextDecoder().decode(stdout));
  } finally {
    await Deno.remove(file);
  }
}

/** How many runs: `BENCH_RUNS`, or the usual number. */
export function runsOr(usual: number): number {
  const runs = Number(Deno.env.get("BENCH_RUNS") ?? usual);
  if (!Number.isInteger(runs) || runs < 1) throw new RangeError("BENCH_RUNS is to be 1 or more");
  return runs;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const high = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? NaN) + high) / 2;
}

export interface TableOptions {
  /** Bytes that each command works on, for a column with MiB/s. */
  readonly bytes?: number | undefined;
  /** Name of the row that the others are compared with; the first when absent. */
  readonly base?: string | undefined;
  /** What a row is called. */
  readonly heading?: string | undefined;
}

/**
 * A Markdown table: median (minimum – maximum) of each figure, and how many times as long as the first row it took. With
 * one run there is no spread to tell.
 */
export function table(figures: readonly Figures[], options: TableOptions = {}): string {
  const { bytes, base, heading = "command" } = options;
  const baseRow = figures.find(({ name }) => name === base) ?? figures[0];
  const first = median(baseRow?.wallMs ?? []);
  const rows = figures.map((row) => {
    const wall = median(row.wallMs);
    return [
      row.name,
      spread(row.wallMs.map((ms) => ms / 1000), wall < 10_000 ? 3 : 1),
      ...(bytes === undefined ? [] : [(bytes / 1048576 / (wall / 1000)).toFixed(0)]),
      spread(row.cpuMs.map((ms) => ms / 1000), wall < 10_000 ? 3 : 1),
      spread(row.peakMiB, 0),
      (wall / first).toFixed(2),
    ];
  });
  return markdownTable([
    heading,
    "wall s",
    ...(bytes === undefined ? [] : ["MiB/s"]),
    "CPU s",
    "peak MiB",
    "wall, ratio",
  ], rows);
}

/** `median (minimum – maximum)` */
export function spread(values: readonly number[], digits: number): string {
  const text = (value: number) => value.toFixed(digits);
  if (values.length === 1) return text(median(values));
  return `${text(median(values))} (${text(Math.min(...values))} – ${text(Math.max(...values))})`;
}

export function markdownTable(
  head: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line), ""].join("\n");
}
