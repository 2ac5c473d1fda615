/** Stores for the tests of the WAL archive: a directory that goes away, and wrappers that watch or break one. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Logger } from "../../../lib/cli/log.ts";
import { type ServerLayout, serverLayout } from "../../../lib/layout.ts";
import type { ObjectStore } from "../../../providers/object_store.ts";
import { openStore } from "../../../providers/open.ts";

export interface LocalStore {
  /** A directory for the test's own files. */
  readonly directory: string;
  readonly url: string;
  readonly store: ObjectStore;
  readonly layout: ServerLayout;
}

/** Run a test with an empty `file://` store. */
export async function withLocalStore(test: (local: LocalStore) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-wal-"));
  try {
    const url = pathToFileURL(join(directory, "bucket")).href;
    const { store } = await openStore(url, { env: {} });
    await store.createBucket();
    await test({ directory, url, store, layout: serverLayout("", "main") });
    await store.close();
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** A store whose methods can be replaced one by one. Without a `putContent` of its own, another `put` sees all that is put. */
export function altered(store: ObjectStore, changes: Partial<ObjectStore>): ObjectStore {
  return new Proxy(store, {
    get(target, name) {
      if (Object.hasOwn(changes, name)) return Reflect.get(changes, name);
      if (name === "putContent" && Object.hasOwn(changes, "put")) return undefined;
      const member: unknown = Reflect.get(target, name);
      return typeof member === "function" ? member.bind(target) : member;
    },
  });
}

/** A logger that keeps the lines, as `LEVEL: message`. */
export function recordingLogger(): Logger & { readonly lines: string[] } {
  const lines: string[] = [];
  const at = (level: string) => (message: string) => void lines.push(`${level}: ${message}`);
  return {
    lines,
    debug: at("DEBUG"),
    info: at("INFO"),
    warning: at("WARNING"),
    error: at("ERROR"),
    critical: at("CRITICAL"),
    shows: () => true,
  };
}

/** Bytes that look like WAL: half of it repeats, half of it does not. The same for the same seed. */
export function walBytes(size: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(size);
  let state = seed >>> 0 || 1;
  for (let at = 0; at < size; at += 64) {
    for (let i = at; i < Math.min(at + 32, size); i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      bytes[i] = state;
    }
  }
  return bytes;
}

export async function readObject(store: ObjectStore, key: string): Promise<Uint8Array> {
  const { object, body } = await store.get(key);
  const bytes = new Uint8Array(object.size);
  let filled = 0;
  for await (const chunk of body) {
    bytes.set(chunk, filled);
    filled += chunk.length;
  }
  return bytes.subarray(0, filled);
}

export async function keysOf(store: ObjectStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const entry of store.list("")) if (entry.kind === "object") keys.push(entry.key);
  return keys;
}

export async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) {
    yield await Promise.resolve(bytes.subarray(at, at + size));
  }
}

/** As if the suffixes had changed long ago: nobody who does not know of them is at work any more. */
export async function settle(store: ObjectStore, { identity: key }: ServerLayout): Promise<void> {
  const identity = JSON.parse(new TextDecoder().decode(await readObject(store, key)));
  const since = "2026-01-01T00:00:00.000Z";
  await store.put(key, new TextEncoder().encode(JSON.stringify({ ...identity, since })));
}
