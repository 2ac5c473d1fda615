/** Recovery on a directory: every version, every codec; see recovery_story.ts. */
import { recoveryStory, type Story } from "./recovery_story.ts";
import { testOnStores } from "./stores.ts";

const STORIES: readonly Story[] = [
  { major: 13, target: "time", backups: ["gzip", "lz4", ""], wal: ["", "zstd", "bzip2"] },
  { major: 15, target: "lsn", backups: ["zstd", "bzip2", "snappy"], wal: ["gzip", "xz", "lz4"] },
  { major: 17, target: "name", backups: ["bzip2", "", "gzip"], wal: ["lz4", "snappy", "zstd"] },
  { major: 18, target: "xid", backups: ["snappy", "zstd", "lz4"], wal: ["xz", "gzip", ""] },
];

for (const story of STORIES) {
  const codecs = `backups ${story.backups.join("+")}, WAL ${story.wal.join("+")}`;
  testOnStores(
    `PostgreSQL ${story.major} is lost and recovered to a ${story.target}, ${codecs}`,
    (store) => recoveryStory(store, story),
    ["file"],
  );
}
