import { compareKeys } from "../../providers/key_order.ts";
import {
  type ListEntry,
  type ObjectStore,
  type StoredObject,
  StoreError,
} from "../../providers/object_store.ts";

export type ScriptedCall =
  | "bucketExists"
  | "createBucket"
  | "list"
  | "head"
  | "get"
  | "put"
  | "startMultipart"
  | "uploadPart"
  | "complete"
  | "abort"
  | "listUploads"
  | "removeUpload"
  | "deleteMany";

/** How the wrappers' tests steer the store beneath them. Each hook may throw. */
export interface Script {
  /** Before anything was done. */
  before?: (call: ScriptedCall, key: string) => void;
  /** When it was done, but the answer is lost. */
  after?: (call: ScriptedCall, key: string) => void;
  /** Before each chunk of a body. May return "end" to end it early without an error. */
  chunk?: (key: string, position: number) => "end" | void;
  /** Before each entry of a listing. */
  entry?: (name: string) => void;
  /** Why a key can't be deleted now. */
  deletion?: (key: string) => StoreError | undefined;
}

export interface ScriptedStore {
  readonly store: ObjectStore;
  readonly objects: Map<string, Uint8Array>;
  /** Every call that reached the store, in order. */
  readonly calls: string[];
  readonly script: Script;
}

/** A store in memory that fails as a script says. For the tests of wrappers only. */
export function scriptedStore(chunkSize = 10): ScriptedStore {
  const objects = new Map<string, Uint8Array>();
  const versions = new Map<string, number>();
  const calls: string[] = [];
  const script: Script = {};
  let uploads = 0;
  const unfinished = new Map<string, string>();

  const perform = async <T>(
    call: ScriptedCall,
    key: string,
    signal: AbortSignal | undefined,
    work: () => T,
  ): Promise<T> => {
    await Promise.resolve();
    signal?.throwIfAborted();
    calls.push(`${call} ${key}`.trim());
    script.before?.(call, key);
    const result = work();
    script.after?.(call, key);
    return result;
  };
  const write = (key: string, body: Uint8Array, createOnly: boolean | undefined): void => {
    if (createOnly && objects.has(key)) throw new StoreError("exists", `Cannot write ${key}`);
    objects.set(key, body.slice());
    versions.set(key, (versions.get(key) ?? 0) + 1);
  };
  const describe = (key: string): StoredObject => {
    const body = objects.get(key);
    if (body === undefined) throw new StoreError("not-found", `Cannot read ${key}`, { key });
    return { key, size: body.length, etag: `v${versions.get(key) ?? 0}` };
  };

  const store: ObjectStore = {
    provider: "local",
    description: "a scripted store",
    limits: {
      maxParts: 10,
      minPartSize: 1,
      maxPartSize: 1000,
      maxObjectSize: 10_000,
      maxPutSize: 1000,
      maxDeleteBatch: 10,
    },
    capabilities: { createOnlyPut: true, createOnlyMultipart: true, tags: false },
    bucketExists: (options) => perform("bucketExists", "", options?.signal, () => true),
    createBucket: (options) => perform("createBucket", "", options?.signal, () => {}),
    head: (key, options) => perform("head", key, options?.signal, () => describe(key)),
    async *list(prefix, options = {}) {
      const { startAfter, delimiter } = options;
      await perform("list", startAfter ?? "", options.signal, () => {});
      const entries = new Map<string, ListEntry>();
      for (const key of [...objects.keys()].sort(compareKeys)) {
        if (!key.startsWith(prefix)) continue;
        if (startAfter !== undefined && compareKeys(key, startAfter) <= 0) continue;
        const cut = delimiter === undefined ? -1 : key.indexOf(delimiter, prefix.length);
        const group = key.slice(0, cut + 1);
        if (cut < 0) entries.set(key, { kind: "object", ...describe(key) });
        else entries.set(group, { kind: "prefix", prefix: group });
      }
      for (const [name, entry] of entries) {
        script.entry?.(name);
        yield entry;
      }
      script.entry?.("");
    },
    get: (key, options = {}) =>
      perform("get", `${key} ${options.start ?? 0}`, options.signal, () => {
        const object = describe(key);
        if (options.etag !== undefined && options.etag !== object.etag) {
          throw new StoreError("changed", `Cannot read ${key}: it was replaced`, { key });
        }
        const content = objects.get(key) ?? new Uint8Array();
        const end = Math.min(options.end ?? content.length, content.length);
        const body = async function* () {
          for (let at = options.start ?? 0; at < end; at += chunkSize) {
            await Promise.resolve();
            options.signal?.throwIfAborted();
            if (script.chunk?.(key, at) === "end") return;
            yield content.slice(at, Math.min(at + chunkSize, end));
          }
          script.chunk?.(key, end);
        };
        return { object, body: body() };
      }),
    put: (key, body, options) =>
      perform("put", key, options?.signal, () => write(key, body, options?.createOnly)),
    startMultipart: (key, options) =>
      perform("startMultipart", key, options?.signal, () => {
        const id = ++uploads;
        unfinished.set(String(id), key);
        const end = () => {
          gone = true;
          unfinished.delete(String(id));
        };
        let gone = false;
        const parts = new Map<number, Uint8Array>();
        const requireUpload = () => {
          if (gone) throw new StoreError("not-found", `Cannot write ${key}: upload ${id} is gone`);
        };
        return {
          key,
          uploadPart: (number, body, partOptions) =>
            perform("uploadPart", `${key} ${number}`, partOptions?.signal, () => {
              requireUpload();
              parts.set(number, body.slice());
              return { number, size: body.length, etag: `${number}` };
            }),
          complete: (chosen, completeOptions) =>
            perform("complete", key, completeOptions?.signal, () => {
              requireUpload();
              const bodies = chosen.map(({ number }) => parts.get(number) ?? new Uint8Array());
              const whole = new Uint8Array(bodies.flatMap((body) => [...body]));
              write(key, whole, options?.createOnly);
              end();
              return {};
            }),
          abort: (abortOptions) =>
            perform("abort", key, abortOptions?.signal, () => {
              requireUpload();
              end();
            }),
        };
      }),
    async *listUploads(prefix, options = {}) {
      await perform("listUploads", prefix, options.signal, () => {});
      for (const [id, key] of unfinished) {
        script.entry?.(key);
        if (key.startsWith(prefix)) yield { key, id, size: 0 };
      }
    },
    removeUpload: ({ key, id }, options) =>
      perform("removeUpload", key, options?.signal, () => {
        unfinished.delete(id);
        return undefined;
      }),
    deleteMany: (keys, options) =>
      perform("deleteMany", keys.join(","), options?.signal, () => {
        const failures = [];
        for (const key of keys) {
          const error = script.deletion?.(key);
          if (error === undefined) objects.delete(key);
          else failures.push({ key, error });
        }
        return failures;
      }),
    close: () => Promise.resolve(),
  };
  return { store, objects, calls, script };
}
