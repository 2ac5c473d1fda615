/** Run by restore_test.ts as root: gives up its rights, then restores. Words: url, backup id, destination. */
import { openFileStore } from "../../../providers/file/store.ts";
import { serverLayout } from "../../../lib/layout.ts";
import { restoreBackup } from "../../../lib/restore/restore.ts";
import { doneInfo, recordingLog } from "./fixtures.ts";

const [url = "", backupId = "", destination = ""] = Deno.args;
process.setgid?.(65534);
process.setuid?.(65534);
const { log } = recordingLog();
const { store } = await openFileStore(url, { env: {} });
await restoreBackup({
  store,
  layout: serverLayout("", "main"),
  backupId,
  info: doneInfo(),
  destination,
  tablespaceRules: [],
  log,
  signal: new AbortController().signal,
});
await store.close();
