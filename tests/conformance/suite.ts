/**
 * The contract of providers/object_store.ts as tests. Every provider runs the same suite, against a
 * real server.
 */
import assert from "node:assert/strict";
import { compareKeys } from "../../providers/key_order.ts";
import type { ObjectStore } from "../../providers/object_store.ts";
import { deletionTests } from "./deletion.ts";
import { listingTests } from "./listing.ts";
import { multipartTests } from "./multipart.ts";
import { readingTests } from "./reading.ts";
import { writingTests } from "./writing.ts";

export interface StoreUnderTest {
  /** A store whose bucket exists. */
  readonly store: ObjectStore;
  /** A store whose bucket (directory) does not exist. Each call gives another one. */
  readonly missingBucket: () => Promise<ObjectStore>;
  /** Rules that this server is known to break: the tests of those have to fail just so. */
  readonly broken?: Readonly<Record<string, Breach>>;
  /** Gives back everything. The suite does not close `store` itself. */
  readonly close: () => Promise<void>;
}

export interface Breach {
  readonly how: string;
  /** In the message that the test fails with. */
  readonly message: RegExp;
  /** It may also be kept. */
  readonly sometimes?: boolean;
}

/** What one test works with. */
export interface Subject {
  readonly store: ObjectStore;
  readonly missingBucket: () => Promise<ObjectStore>;
  /** No object has a key that begins so; ends with a slash. */
  readonly prefix: string;
}

export type ConformanceTest = readonly [name: string, run: (subject: Subject) => Promise<void>];

/**
 * Define one Deno test with a step for each rule of the contract.
 * @param open undefined when the server can't be had; it has then said why, and the test is ignored
 */
export function conformance(
  name: string,
  open: (() => Promise<StoreUnderTest>) | undefined,
): void {
  Deno.test({
    name: `${name} keeps the contract of ObjectStore`,
    ignore: open === undefined,
    async fn(test) {
      if (open === undefined) return;
      const { store, missingBucket, broken = {}, close } = await open();
      try {
        const rules = new Set(allTests().map(([rule]) => rule));
        for (const rule of Object.keys(broken)) assert.ok(rules.has(rule), `no such rule: ${rule}`);
        for (const [number, [rule, run]] of allTests().entries()) {
          const prefix = `test-${crypto.randomUUID().slice(0, 8)}-${number}/`;
          const subject = { store, missingBucket, prefix };
          const breach = broken[rule];
          if (breach === undefined) await test.step(rule, () => run(subject));
          else {
            const name = `${breach.sometimes ? "NOT ALWAYS" : "NOT"}: ${rule} (${breach.how})`;
            await test.step(name, () => requireBreach(breach, run(subject)));
          }
        }
      } finally {
        await close();
      }
    },
  });
}

async function requireBreach(
  { message, sometimes = false }: Breach,
  test: Promise<void>,
): Promise<void> {
  const error = await test.then(() => null, (error: unknown) => error);
  if (error === null) {
    assert.ok(sometimes, "the rule is kept: take it from the list of broken ones");
  } else if (!(error instanceof Error) || !message.test(error.message)) throw error;
}

function allTests(): ConformanceTest[] {
  return [
    ...writingTests,
    ...readingTests,
    ...listingTests,
    ...multipartTests,
    ...deletionTests,
  ];
}

/** Keys with everything that is special in a URL, XML, a shell or a sort order. */
export const AWKWARD_KEYS: readonly string[] = [
  "plain",
  "a b",
  "a+b",
  "a%20b",
  "a%b",
  "a&b=c?d#e",
  "quote'\"s",
  "<xml>&amp;",
  "back\\slash",
  "colon:at@semi;comma,",
  "brackets[]{}()",
  "star*question!",
  "tilde~dollar$",
  "umlaut-ü-ñ",
  "日本語",
  "emoji-😀",
  "private-use-\ue000",
  "dot.",
  ".hidden",
  " leading space",
  "trailing space ",
  "dir/a",
  "dir-b",
  "dir.c",
  "dir0d",
].sort(compareKeys);

/** Azure takes a backslash for a slash, which its provider refuses; the others take all. */
export function awkwardKeysFor(store: ObjectStore): readonly string[] {
  if (store.provider !== "azure-blob-storage") return AWKWARD_KEYS;
  return AWKWARD_KEYS.filter((key) => !key.includes("\\"));
}

export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Bytes that differ at every place, and from one seed to another. */
export function pattern(size: number, seed = 1): Uint8Array {
  const words = new Uint32Array(Math.ceil(size / 4));
  let state = seed * 2654435761 >>> 0 || 1;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return new Uint8Array(words.buffer, 0, size);
}

export async function readAll(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    size += chunk.length;
  }
  const all = new Uint8Array(size);
  let position = 0;
  for (const chunk of chunks) {
    all.set(chunk, position);
    position += chunk.length;
  }
  return all;
}

export async function contentOf(store: ObjectStore, key: string): Promise<Uint8Array> {
  return await readAll((await store.get(key)).body);
}

/** The keys and group prefixes of a listing, in its order. */
export async function namesIn(
  store: ObjectStore,
  prefix: string,
  options: Parameters<ObjectStore["list"]>[1] = {},
): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of store.list(prefix, options)) {
    names.push(entry.kind === "object" ? entry.key : entry.prefix);
  }
  return names;
}

/** Run a function for every item, a few at once. */
export async function forEach<T>(
  items: readonly T[],
  atOnce: number,
  run: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items.values();
  const worker = async () => {
    for (const item of queue) await run(item);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

export async function putKeys(store: ObjectStore, keys: readonly string[]): Promise<void> {
  await forEach(keys, 16, (key) => store.put(key, bytes(key)));
}
