/** A store in a temporary directory, filled by key, for tests of what works on any store. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Logger } from "../../../lib/cli/log.ts";
import { type ServerLayout, serverLayout } from "../../../lib/layout.ts";
import type { ObjectStore } from "../../../providers/object_store.ts";
import { openFileStore } from "../../../providers/file/store.ts";
import { PLAIN, withLines } from "./fixtures.ts";

export interface TemporaryStore extends AsyncDisposable {
  readonly url: string;
  readonly store: ObjectStore;
  /** Of server `srv`. */
  readonly layout: ServerLayout;
  put(key: string, text: string): Promise<void>;
  /** A backup with one data archive; `lines` replace those of a complete backup. */
  addBackup(id: string, lines?: string): Promise<void>;
  /** Empty files of the WAL archive. */
  addWal(...names: string[]): Promise<void>;
  read(key: string): Promise<string>;
  /** All keys, sorted. */
  keys(): Promise<string[]>;
}

export async function temporaryStore(prefix = ""): Promise<TemporaryStore> {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-test-"));
  const url = pathToFileURL(directory).href;
  const { store: files } = await openFileStore(url, { env: {} });
  const store = prefix === "" ? files : withEmptyParts(files);
  const layout = serverLayout(prefix, "srv");
  const put = (key: string, text: string) => store.put(key, new TextEncoder().encode(text));
  return {
    url,
    store,
    layout,
    put,
    async addBackup(id, lines = "") {
      await put(layout.backupInfo(id), withLines(PLAIN, lines));
      await put(layout.archive(id, "data", 0, "tar"), "data");
    },
    async addWal(...names) {
      for (const name of names) await put(layout.wal(name), "");
    },
    async read(key) {
      let text = "";
      const decoder = new TextDecoder();
      for await (const chunk of (await store.get(key)).body) {
        text += decoder.decode(chunk, { stream: true });
      }
      return text;
    },
    async keys() {
      const keys: string[] = [];
      for await (const entry of store.list("")) if (entry.kind === "object") keys.push(entry.key);
      return keys.sort();
    },
    async [Symbol.asyncDispose]() {
      await store.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Buckets have keys with empty parts (`p//srv`), directories don't: such keys are written differently. */
function withEmptyParts(store: ObjectStore): ObjectStore {
  const encode = (key: string) => key.replaceAll("//", "/%/");
  const decode = (key: string) => key.replaceAll("/%/", "//");
  return {
    ...store,
    put: (key, body, options) => store.put(encode(key), body, options),
    get: (key, options) => store.get(encode(key), options),
    head: (key, options) => store.head(encode(key), options),
    deleteMany: (keys, options) => store.deleteMany(keys.map(encode), options),
    async *list(prefix, options) {
      for await (const entry of store.list(encode(prefix), options)) {
        yield entry.kind === "object"
          ? { ...entry, key: decode(entry.key) }
          : { ...entry, prefix: decode(entry.prefix) };
      }
    },
  };
}

/** Keeps what is logged as `LEVEL message`. */
export function recordingLogger(): Logger & { readonly lines: string[] } {
  const lines: string[] = [];
  const at = (level: string) => (message: string) => {
    lines.push(`${level} ${message}`);
  };
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
