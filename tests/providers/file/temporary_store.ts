import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openFileStore } from "../../../providers/file/store.ts";
import type { ObjectStore } from "../../../providers/object_store.ts";

export interface TemporaryStore extends AsyncDisposable {
  readonly root: string;
  readonly store: ObjectStore;
  readonly notices: readonly string[];
}

/** A store in a new directory, which is removed at the end. */
export async function temporaryStore(): Promise<TemporaryStore> {
  const root = await mkdtemp(join(tmpdir(), "barman-cloud-file-"));
  const notices: string[] = [];
  const options = { env: {}, onNotice: (message: string) => notices.push(message) };
  const { store } = await openFileStore(`file://${root}`, options);
  return {
    root,
    store,
    notices,
    async [Symbol.asyncDispose]() {
      await store.close();
      await rm(root, { recursive: true });
    },
  };
}
