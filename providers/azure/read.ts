import { readBody } from "../body.ts";
import {
  type Cancellable,
  type GetOptions,
  isStoreError,
  type ObjectReader,
  type StoredObject,
  StoreError,
} from "../object_store.ts";
import { bareEtag, firstPageIsThere } from "./list.ts";
import type { AzureSession, RequestContext } from "./session.ts";

/**
 * Barman's way to find out: a SAS token of one container can't ask for the container itself.
 * @returns false when the service answered that there is no such container.
 */
export async function containerExists(
  session: AzureSession,
  prefix: string,
  { signal }: Cancellable = {},
): Promise<boolean> {
  try {
    await firstPageIsThere(session, prefix, signal);
    return true;
  } catch (error) {
    if (isStoreError(error, "no-bucket")) return false;
    throw error;
  }
}

export async function headBlob(
  session: AzureSession,
  key: string,
  { signal }: Cancellable = {},
): Promise<StoredObject> {
  const context = { action: `look for ${key}`, key, signal };
  const answer = await session.call(context, (send) => session.blob(key).getProperties(send));
  return storedObject(key, answer.contentLength ?? 0, answer);
}

export async function getBlob(
  session: AzureSession,
  key: string,
  options: GetOptions = {},
): Promise<ObjectReader> {
  const { start = 0, end, etag, signal } = options;
  const context: RequestContext = { action: `read ${key}`, key, signal, precondition: "changed" };
  if (start < 0 || (end !== undefined && end <= start)) {
    throw new StoreError(
      "invalid",
      `Cannot read ${key} in ${session.description}: bytes ${start} to ${end} are no range`,
      { key },
    );
  }
  const count = end === undefined ? undefined : end - start;
  // A signal of this request alone: the reason of a broken body is found by it.
  const own = new AbortController();
  const requestSignal = signal === undefined ? own.signal : AbortSignal.any([signal, own.signal]);
  const answer = await session.call(context, () =>
    session.blob(key).download(start, count, {
      abortSignal: requestSignal,
      conditions: etag === undefined ? {} : { ifMatch: `"${bareEtag(etag)}"` },
      maxRetryRequests: 0,
    }));
  const stream = answer.readableStreamBody;
  if (stream === undefined || !isReadable(stream)) {
    throw new StoreError("other", `Cannot read ${key} in ${session.description}: it sent no body`, {
      key,
    });
  }
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(answer.contentRange ?? "");
  const isRange = start > 0 || end !== undefined;
  if (isRange && (range === null || Number(range[1]) !== start)) {
    stream.destroy();
    throw new StoreError(
      "invalid",
      `Cannot read ${key} in ${session.description}: the store ignores ranges`,
      { key },
    );
  }
  const size = range === null ? answer.contentLength ?? 0 : Number(range[2]);
  if (start > 0 && start >= size) {
    // Azure refuses this, its emulator sends nothing.
    stream.destroy();
    throw new StoreError(
      "invalid",
      `Cannot read ${key} in ${session.description}: the object does not reach so far`,
      { key, code: "InvalidRange" },
    );
  }
  return {
    object: storedObject(key, size, answer),
    body: readBody(stream, {
      context,
      where: session.description,
      expected: answer.contentLength,
      reuse: options.reuse,
      // The SDK's stream only says that bytes are missing.
      storeError: (error) => session.storeError(session.bodyError(requestSignal) ?? error, context),
    }),
  };
}

/** What the SDK gives in a server's runtime: a Node stream. */
interface Readable extends AsyncIterable<Uint8Array> {
  destroy(): void;
  on(event: "error", listener: () => void): unknown;
}

function isReadable(body: object): body is Readable {
  return Symbol.asyncIterator in body && "destroy" in body;
}

function storedObject(
  key: string,
  size: number,
  answer: { readonly etag?: string | undefined; readonly lastModified?: Date | undefined },
): StoredObject {
  const { etag, lastModified } = answer;
  return {
    key,
    size,
    ...(etag === undefined ? {} : { etag: bareEtag(etag) }),
    ...(lastModified === undefined ? {} : { lastModified }),
  };
}
