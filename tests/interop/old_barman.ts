/** What Barman 3.4 can't read, taken out by hand, as somebody who goes back to it would do. */
import type { Bucket } from "./bucket.ts";

/** Fields of backup.info that came with 3.11 and later. */
const LATER = [
  "children_backup_ids",
  "cluster_size",
  "data_checksums",
  "encryption",
  "parent_backup_id",
  "summarize_wal",
];

export async function trimForOldBarman(bucket: Bucket, key: string): Promise<void> {
  const lines = (await bucket.text(key)).split("\n");
  const kept = lines.filter((line) => !LATER.includes(line.slice(0, line.indexOf("="))));
  await bucket.put(key, kept.join("\n"));
}
