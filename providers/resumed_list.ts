/** Listings that go on after a failure. */
import { compareKeys } from "./key_order.ts";
import type {
  Cancellable,
  ListEntry,
  ListOptions,
  ObjectStore,
  UnfinishedUpload,
} from "./object_store.ts";
import { Attempts, type Retry } from "./retry_attempts.ts";

/** After the last entry that was handed out. */
export function resumedList(
  store: ObjectStore,
  retry: Retry,
  prefix: string,
  options: ListOptions = {},
): AsyncGenerator<ListEntry> {
  const attempts = new Attempts(retry, `list ${prefix} in ${store.description}`, options.signal);
  let last: string | undefined;
  return repeated(
    attempts,
    () => store.list(prefix, { ...options, startAfter: last ?? options.startAfter }),
    (entry) => {
      const key = entry.kind === "object" ? entry.key : entry.prefix;
      // A group comes again as long as one key in it is after its own prefix.
      if (last !== undefined && compareKeys(key, last) <= 0) return false;
      last = key;
      attempts.progress();
      return true;
    },
  );
}

/** From the beginning after a failure, since there is no place to go on from; each upload is told once. */
export function repeatedUploads(
  store: ObjectStore,
  retry: Retry,
  prefix: string,
  options: Cancellable = {},
): AsyncGenerator<UnfinishedUpload> {
  const what = `list unfinished uploads in ${store.description}`;
  const told = new Set<string>();
  return repeated(
    new Attempts(retry, what, options.signal),
    () => store.listUploads(prefix, options),
    ({ key, id }) => {
      const name = `${key}\n${id}`;
      if (told.has(name)) return false;
      told.add(name);
      return true;
    },
  );
}

/** What `isNew` of a listing that is opened once more after each failure. */
async function* repeated<T>(
  attempts: Attempts,
  open: () => AsyncIterable<T>,
  isNew: (entry: T) => boolean,
): AsyncGenerator<T> {
  for (;;) {
    const source = open()[Symbol.asyncIterator]();
    let ended = false;
    try {
      for (;;) {
        const next = await nextOf(source);
        if (next.failed) {
          ended = true;
          await attempts.pauseAfter(next.error);
          break;
        }
        if (next.result.done) {
          ended = true;
          return;
        }
        if (isNew(next.result.value)) yield next.result.value;
      }
    } finally {
      if (!ended) await source.return?.();
    }
  }
}

/** So that an error of the source is told from one that the consumer throws into a generator. */
type Next<T> =
  | { readonly failed: false; readonly result: IteratorResult<T> }
  | { readonly failed: true; readonly error: unknown };

async function nextOf<T>(source: AsyncIterator<T>): Promise<Next<T>> {
  try {
    return { failed: false, result: await source.next() };
  } catch (error) {
    return { failed: true, error };
  }
}
