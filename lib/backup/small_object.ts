/** Objects that are read whole because they are small: backup.info and annotations. */
import type { Cancellable, ObjectStore } from "../../providers/object_store.ts";

/** A small object that is too large to be what it should be, or no UTF-8. */
export class NotText extends Error {
  override readonly name = "NotText";
}

/**
 * The text of an object.
 * @param maxSize bytes; nothing more is ever held
 * @throws {StoreError} as answered, {NotText}
 */
export async function readText(
  store: ObjectStore,
  key: string,
  maxSize: number,
  options: Cancellable,
): Promise<string> {
  const { object, body } = await store.get(key, options);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxSize) break;
    chunks.push(chunk);
  }
  if (size > maxSize) {
    throw new NotText(`it has ${object.size} bytes, more than the ${maxSize} that are allowed`);
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new NotText("it is no UTF-8 text", { cause: error });
  }
}
