/** One command line, run by both tools on equal buckets; what comes of it must be equal. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { S3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { type Bucket, missingBucket, newBucket } from "./bucket.ts";
import { type CommandName, NEWEST, OURS, type Tool } from "./commands.ts";
import type { State } from "./states.ts";

export interface Case {
  readonly name: string;
  readonly command: CommandName;
  /** `URL` and `DIR` (an empty directory) stand for the tool's own. */
  readonly words: readonly string[];
  /** The bucket before; `missing`: there is no such bucket. Buckets of the same state that nothing changes are shared. */
  readonly state: State | "missing";
  /** The command leaves the bucket as it is. */
  readonly reads?: true;
  /** More environment; credentials are there already. */
  readonly env?: Readonly<Record<string, string>>;
  /** Files in DIR before. */
  readonly files?: Readonly<Record<string, Uint8Array | string>>;
  /** Options of the connection; the server's endpoint by default. */
  readonly connection?: readonly string[];
  /** The Barman that it came with. */
  readonly since?: readonly [number, number];
  /** What is different on purpose; everything else must be equal. */
  readonly differs?: Difference;
}

/** Each is told in docs/compatibility.md under its id. */
export interface Difference {
  readonly id: string;
  readonly ours: Partial<Outcome>;
  readonly barman: Partial<Outcome>;
  /** Keys that only Barman leaves behind. */
  readonly leftByBarman?: readonly string[];
}

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  /** Key → content of all objects after the run; null when nothing may change. */
  readonly objects: Readonly<Record<string, string>> | null;
  /** The same for DIR. */
  readonly files: Readonly<Record<string, string>>;
}

/** Runs cases; keeps the buckets that nothing changes. */
export class SideBySide {
  readonly #server: S3ForTests;
  readonly #shared = new Map<State, Promise<Bucket>>();
  readonly #buckets: Bucket[] = [];

  constructor(server: S3ForTests) {
    this.#server = server;
  }

  async check(given: Case): Promise<void> {
    assert.ok(NEWEST !== null);
    const [ours, barman] = await Promise.all([this.#run(OURS, given), this.#run(NEWEST, given)]);
    const { differs } = given;
    const log = `\nours said: ${ours.stderr}\nBarman said: ${barman.stderr}`;
    if (differs === undefined) return assertEqual(ours.outcome, barman.outcome, log);
    // Both are pinned: when Barman changes, the difference may be gone.
    assertEqual({ ...ours.outcome, ...differs.ours }, ours.outcome, `${log}\n(ours changed)`);
    assertEqual(
      { ...barman.outcome, ...differs.barman },
      barman.outcome,
      `${log}\n(Barman changed)`,
    );
    const { leftByBarman = [] } = differs;
    assertEqual(
      ours.outcome,
      { ...without(barman.outcome, leftByBarman), ...differs.ours },
      log,
    );
    assert.ok(leftByBarman.length > 0 || !isDeepStrictEqual(differs.ours, differs.barman));
  }

  async close(): Promise<void> {
    for (const bucket of this.#buckets) await bucket[Symbol.asyncDispose]();
  }

  async #run(tool: Tool, given: Case): Promise<{ outcome: Outcome; stderr: string }> {
    const bucket = await this.#bucket(given);
    const directory = await mkdtemp(join(tmpdir(), "interop-"));
    try {
      for (const [name, content] of Object.entries(given.files ?? {})) {
        await mkdir(join(directory, name, ".."), { recursive: true });
        await Deno.writeFile(
          join(directory, name),
          typeof content === "string" ? new TextEncoder().encode(content) : content,
        );
      }
      const words = given.words.map((word) =>
        word.replaceAll("URL", bucket.url).replaceAll("BUCKET", bucket.name).replaceAll(
          "DIR",
          directory,
        )
      );
      const result = await tool.run(given.command, [
        ...given.connection ?? bucket.words,
        ...words,
      ], {
        env: { ...bucket.env, AWS_MAX_ATTEMPTS: "1", TZ: "UTC", ...given.env },
        cwd: directory,
      });
      const stdout = result.stdout.replaceAll(directory, "DIR").replaceAll(bucket.url, "URL");
      return {
        outcome: {
          code: result.code,
          stdout,
          objects: given.reads === true || given.state === "missing"
            ? null
            : await contents(bucket),
          files: await filesIn(directory),
        },
        stderr: result.stderr,
      };
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  async #bucket(given: Case): Promise<Bucket> {
    const make = async () => {
      const { state } = given;
      const bucket = state === "missing"
        ? missingBucket(this.#server)
        : await newBucket(this.#server);
      this.#buckets.push(bucket);
      if (state !== "missing") await state(bucket);
      return bucket;
    };
    const { state } = given;
    if (given.reads !== true || state === "missing") return await make();
    const shared = this.#shared.get(state) ?? make();
    this.#shared.set(state, shared);
    return await shared;
  }
}

function without(outcome: Outcome, keys: readonly string[]): Outcome {
  const objects = { ...outcome.objects };
  for (const key of keys) {
    assert.ok(key in objects, `Barman did not leave ${key} behind`);
    delete objects[key];
  }
  return keys.length === 0 ? outcome : { ...outcome, objects };
}

function assertEqual(ours: Outcome, barman: Outcome, log: string): void {
  try {
    assert.deepEqual(ours, barman);
  } catch (error) {
    throw new Error(`${error instanceof Error ? error.message : String(error)}${log}`);
  }
}

async function contents(bucket: Bucket): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const key of await bucket.keys()) found[key] = short(await bucket.get(key));
  return found;
}

async function filesIn(directory: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const name = path.slice(directory.length + 1);
    found[name] = entry.isFile() ? short(await readFile(path)) : "directory";
  }
  return found;
}

/** Small texts as they are, others by their hash. */
function short(content: Uint8Array): string {
  return content.length <= 200
    ? new TextDecoder().decode(content)
    : `${content.length} bytes, ${createHash("sha256").update(content).digest("hex")}`;
}
