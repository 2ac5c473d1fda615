/**
 * Times whole processes. The runs of the compared commands alternate (A B A B …), so that a machine whose speed
 * drifts treats them alike; what to quote are medians and ratios.
 */
import { ensureBun } from "../servers/npm_package.ts";

/** What every bench gets. */
export interface BenchContext {
  readonly executable: string;
  /** Directory of Barman's commands, if any. */
  readonly barman: string | null;
}

export interface Candidate {
  readonly name: string;
  readonly command: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Run before each measured run, not measured. */
  readonly prepare?: readonly string[];
}

export interface Figures {
  readonly name: string;
  readonly wallMs: readonly number[];
  readonly cpuMs: readonly number[];
  /** Peak resident memory of the largest process. */
  readonly peakMiB: readonly number[];
}

/**
 * Runs under Bun, whose spawn tells the kernel's accounting of a finished child (wait4's rusage, children of the
 * child included), which Deno and Node do not.
 */
const RUNNER = `
const { candidates, runs, warmups } = JSON.parse(process.argv[2]);
const results = candidates.map((c) => ({ name: c.name, wallMs: [], cpuMs: [], peakMiB: [] }));
for (let run = -warmups; run < runs; run++) {
  for (const [i, c] of candidates.entries()) {
    const options = { env: c.env ?? {}, cwd: c.cwd, stdin: "ignore", stdout: "ignore", stderr: "pipe" };
    if (c.prepare) Bun.spawnSync(c.prepare, { stdout: "ignore", stderr: "inherit" });
    const before = performance.now();
    const done = Bun.spawnSync(c.command, options);
    const wall = performance.now() - before;
    if (done.exitCode !== 0) {
      console.error(c.name + " ended with " + done.exitCode + ": " + done.stderr.toString().slice(-500));
      process.exit(1);
    }
    if (run < 0) continue;
    results[i].wallMs.push(wall);
    results[i].cpuMs.push(Number(done.resourceUsage.cpuTime.total) / 1000);
    results[i].peakMiB.push(done.resourceUsage.maxRSS / 1048576);
  }
}
console.log(JSON.stringify(results));
`;

/** @throws Error when a command fails: a figure of a failed run means nothing */
export async function measure(
  candidates: readonly Candidate[],
  { runs, warmups = 1 }: { readonly runs: number; readonly warmups?: number },
): Promise<readonly Figures[]> {
  const script = await Deno.makeTempFile({ suffix: ".mjs" });
  try {
    await Deno.writeTextFile(script, RUNNER);
    const { code, stdout, stderr } = await new Deno.Command(await ensureBun(), {
      args: [script, JSON.stringify({ candidates, runs, warmups })],
    }).output();
    if (code !== 0) {
      throw new Error(`Cannot measure: ${new TextDecoder().decode(stderr).trim()}`);
    }
    return JSON.parse(new TextDecoder().decode(stdout));
  } finally {
    await Deno.remove(script);
  }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const high = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? NaN) + high) / 2;
}

/** A Markdown table: median (minimum – maximum) of each figure, and the ratio to the first row's wall time. */
export function table(title: string, figures: readonly Figures[]): string {
  const spread = (values: readonly number[]) =>
    `${median(values).toFixed(1)} (${Math.min(...values).toFixed(1)} – ${
      Math.max(...values).toFixed(1)
    })`;
  const first = median(figures[0]?.wallMs ?? []);
  return [
    `### ${title}`,
    "",
    "| command | wall ms | CPU ms | peak MiB | wall, ratio |",
    "| --- | --- | --- | --- | --- |",
    ...figures.map((row) =>
      `| ${row.name} | ${spread(row.wallMs)} | ${spread(row.cpuMs)} | ${spread(row.peakMiB)} | ${
        (median(row.wallMs) / first).toFixed(2)
      } |`
    ),
    "",
  ].join("\n");
}
