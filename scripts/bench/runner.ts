/**
 * Runs commands and tells their cost. A program of its own, for Bun: its spawn tells the kernel's accounting of a
 * finished child (wait4's rusage, children that the child waited for included), which Deno and Node do not.
 *
 *   bun runner.ts JOB.json        writes the figures to standard output, as JSON
 */
import { readdirSync, readFileSync } from "node:fs";
import type { Figures, RunnerJob } from "./measure.ts";

declare const Bun: {
  spawn(command: readonly string[], options: Record<string, unknown>): {
    readonly pid: number;
    readonly exited: Promise<number>;
    readonly stderr: ReadableStream<Uint8Array>;
    kill(signal: string): void;
    resourceUsage(): { cpuTime: { total: number | bigint }; maxRSS: number } | undefined;
  };
};

/** Milliseconds between two looks at the memory of all processes of a command; short commands are left alone. */
const LOOK_EVERY = 100;
/** Milliseconds for one command, ten times what the slowest takes: peers wait for ever when their store is gone. */
const PATIENCE = 20 * 60_000;
const MIB = 1048576;

const job: RunnerJob = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8"));
const results = job.candidates.map(({ name }) => ({
  name,
  wallMs: [] as number[],
  cpuMs: [] as number[],
  peakMiB: [] as number[],
}));
for (let run = 0; run < job.warmups + job.runs; run++) {
  for (const [index, { name, runs, env, cwd, prepare }] of job.candidates.entries()) {
    const { before, command } = { before: prepare?.[run], command: runs[run] ?? [] };
    if (before !== undefined) await ended(`preparing ${name}`, before, env, cwd);
    const cost = await ended(name, command, env, cwd);
    if (run < job.warmups) continue;
    results[index]?.wallMs.push(cost.wallMs);
    results[index]?.cpuMs.push(cost.cpuMs);
    results[index]?.peakMiB.push(cost.peakMiB);
  }
}
console.log(JSON.stringify(results satisfies Figures[]));

async function ended(
  name: string,
  command: readonly string[],
  env: Readonly<Record<string, string>> = {},
  cwd: string | undefined,
) {
  const options = { env, cwd, stdin: "ignore", stdout: "ignore", stderr: "pipe" };
  const began = performance.now();
  const child = Bun.spawn(command, options);
  let peak = 0;
  const look = setInterval(() => peak = Math.max(peak, memoryOf(child.pid)), LOOK_EVERY);
  const end = setTimeout(() => child.kill("SIGKILL"), PATIENCE);
  const [code, stderr] = await Promise.all([child.exited, new Response(child.stderr).text()]);
  const wallMs = performance.now() - began;
  clearInterval(look);
  clearTimeout(end);
  if (code !== 0) {
    const how = wallMs < PATIENCE
      ? `ended with ${code}`
      : `was killed after ${PATIENCE / 60_000} minutes`;
    console.error(`${name} ${how}: ${command.join(" ")}\n${stderr.slice(-1500)}`);
    process.exit(1);
  }
  const usage = child.resourceUsage();
  return {
    wallMs,
    cpuMs: Number(usage?.cpuTime.total) / 1000,
    // The largest process is told exactly; the sum of several was looked at from time to time.
    peakMiB: Math.max(Number(usage?.maxRSS), peak) / MIB,
  };
}

/** Bytes of a process and all below it; what several of them share counts once (proportional set size). */
function memoryOf(pid: number): number {
  let sum = 0;
  try {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    sum += Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024;
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const children = readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8");
      for (const child of children.split(" ")) if (child !== "") sum += memoryOf(Number(child));
    }
  } catch (error) {
    // It has ended meanwhile.
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "ENOENT" && code !== "ESRCH") throw error;
  }
  return sum;
}
