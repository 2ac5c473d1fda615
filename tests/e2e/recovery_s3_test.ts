/** Recovery on S3: every version, every codec; see recovery_story.ts. */
import { recoveryStory, type Story } from "./recovery_story.ts";
import { testOnStores } from "./stores.ts";

const STORIES: readonly Story[] = [
  { major: 13, target: "lsn", backups: ["", "snappy", "zstd"], wal: ["bzip2", "lz4", "gzip"] },
  { major: 15, target: "time", backups: ["lz4", "gzip", "bzip2"], wal: ["zstd", "", "snappy"] },
  { major: 17, target: "xid", backups: ["zstd", "lz4", "snappy"], wal: ["snappy", "bzip2", "xz"] },
  { major: 18, target: "name", backups: ["bzip2", "", "gzip"], wal: ["zstd", "xz", "lz4"] },
];

for (const story of STORIES) {
  const codecs = `backups ${story.backups.join("+")}, WAL ${story.wal.join("+")}`;
  testOnStores(
    `PostgreSQL ${story.major} is lost and recovered to a ${story.target}, ${codecs}`,
    (store) => recoveryStory(store, story),
    ["s3"],
  );
}
