/** Starts `barman_server.py` beside the tests and runs commands in it. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { RunOptions, RunResult } from "../e2e/executable.ts";

export type BarmanServer = (
  program: string,
  words: readonly string[],
  options: RunOptions,
) => Promise<RunResult>;

const PROGRAM = fileURLToPath(new URL("barman_server.py", import.meta.url));
const startTimeoutMs = 120_000;

/**
 * @param python the interpreter that Barman is installed for
 * @throws {Error} with what the interpreter says, when it does not start
 */
export async function startBarmanServer(python: string): Promise<BarmanServer> {
  const directory = mkdtempSync(join(tmpdir(), "barman-server-"));
  const path = join(directory, "socket");
  const child = spawn(python, [PROGRAM, path], { stdio: ["pipe", "pipe", "inherit"] });
  globalThis.addEventListener("unload", () => {
    child.kill();
    rmSync(directory, { recursive: true, force: true });
  });
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`${PROGRAM} did not start in ${startTimeoutMs} ms`)),
      startTimeoutMs,
    );
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${PROGRAM} ended with code ${code}`)));
    let told = "";
    child.stdout.on("data", (chunk: Uint8Array) => {
      told += new TextDecoder().decode(chunk);
      if (!told.includes("ready\n")) return;
      clearTimeout(timer);
      resolve();
    });
  });
  child.stdout.destroy();
  child.unref();
  return (program, words, options) => runIn(path, program, words, options);
}

function runIn(
  path: string,
  command: string,
  words: readonly string[],
  { env = {}, cwd = "/", timeout = 60_000 }: RunOptions,
): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const chunks: Uint8Array[] = [];
    const seconds = Math.ceil(timeout / 1000);
    socket.on("error", reject);
    socket.on("data", (chunk: Uint8Array) => chunks.push(chunk));
    socket.on("close", () => {
      const text = Buffer.concat(chunks).toString("utf8");
      if (text === "") return reject(new Error(`${command} ${words.join(" ")} gave no result`));
      const { code, stdout, stderr }: { code: number; stdout: string; stderr: string } = JSON.parse(
        text,
      );
      if (code < 0) {
        const how = code === -14 ? `did not end in ${timeout} ms` : `died of signal ${-code}`;
        return reject(new Error(`${command} ${words.join(" ")} ${how}; stderr: ${stderr}`));
      }
      resolve({ code, signal: null, stdout, stderr });
    });
    socket.write(`${JSON.stringify({ command, words, env, cwd, seconds })}\n`);
  });
}
