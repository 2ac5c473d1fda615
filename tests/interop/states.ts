/** What is in a bucket before a command runs. Both tools get the same. */
import type { Bucket } from "./bucket.ts";

export type State = (bucket: Bucket) => Promise<void>;

/** Fields of a complete backup. */
const DONE: Readonly<Record<string, string>> = {
  backup_label: String
    .raw`'START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nLABEL: it\'s "one"\n'`,
  begin_offset: "40",
  begin_time: "2026-01-01 00:00:01.123456+00:00",
  begin_wal: segment(2),
  begin_xlog: "0/2000028",
  children_backup_ids: "None",
  cluster_size: "31234567",
  compression: "None",
  config_file: "/srv/pg/data/postgresql.conf",
  copy_stats:
    "{'total_time': 12.503117, 'number_of_workers': 2, 'analysis_time': 0, 'analysis_time_per_item': {'data': 0}, " +
    "'copy_time_per_item': {'data': 12.104615}, 'serialized_copy_time_per_item': {'data': 1e-05}, " +
    "'copy_time': 12.104615, 'serialized_copy_time': 11.0}",
  data_checksums: "on",
  deduplicated_size: "None",
  encryption: "None",
  end_offset: "312",
  end_time: "2026-01-01 00:00:31+00:00",
  end_wal: segment(2),
  end_xlog: "0/2000138",
  error: "None",
  hba_file: "/srv/pg/data/pg_hba.conf",
  ident_file: "/srv/pg/data/pg_ident.conf",
  included_files: "None",
  mode: "None",
  parent_backup_id: "None",
  pgdata: "/srv/pg/data",
  server_name: "cloud",
  size: "None",
  status: "DONE",
  summarize_wal: "None",
  systemid: "7321456789012345678",
  tablespaces: "None",
  timeline: "1",
  version: "150004",
  xlog_segment_size: "16777216",
};

export const empty: State = async () => {};

/** Objects by their key below `p/main/`. */
export function objects(contents: Readonly<Record<string, string>>): State {
  return async (bucket) => {
    for (const [key, content] of Object.entries(contents)) {
      await bucket.put(`p/main/${key}`, content);
    }
  };
}

export function together(...states: readonly State[]): State {
  return async (bucket) => {
    for (const state of states) await state(bucket);
  };
}

/** The text of a backup.info; `undefined` leaves a field out. */
export function infoText(fields: Readonly<Record<string, string | undefined>> = {}): string {
  const all: Record<string, string | undefined> = { ...DONE, ...fields };
  return Object.keys(all).sort()
    .flatMap((name) => all[name] === undefined ? [] : [`${name}=${all[name]}\n`])
    .join("");
}

/** The nth WAL segment of a timeline, of 16 MiB. */
export function segment(number: number, timeline = 1): string {
  const hex = (value: number) => value.toString(16).toUpperCase().padStart(8, "0");
  return hex(timeline) + hex(Math.floor(number / 256)) + hex(number % 256);
}

export function walKey(name: string): string {
  return /^.{8}\.history/.test(name)
    ? `wals/${name}`
    : `wals/${name.slice(0, 16).toUpperCase()}/${name}`;
}

export function wals(...names: readonly string[]): State {
  return objects(Object.fromEntries(names.map((name) => [walKey(name), `content of ${name}`])));
}

export interface KnownBackup {
  readonly id: string;
  /** Numbers of the first and the last segment. */
  readonly segments?: readonly [number, number];
  readonly timeline?: number;
  readonly fields?: Readonly<Record<string, string | undefined>>;
  /** Names of objects beside backup.info. */
  readonly archives?: readonly string[];
  /** Content of the keep annotation. */
  readonly keep?: string;
}

export function backup(known: KnownBackup): State {
  const { id, segments = [2, 2], timeline = 1, archives = ["data.tar"], keep } = known;
  const [begin, end] = segments;
  const day = `${id.slice(0, 4)}-${id.slice(4, 6)}-${id.slice(6, 8)}`;
  const time = `${id.slice(9, 11)}:${id.slice(11, 13)}`;
  return objects({
    [`base/${id}/backup.info`]: infoText({
      begin_time: `${day} ${time}:01.123456+00:00`,
      end_time: `${day} ${time}:31+00:00`,
      begin_wal: segment(begin, timeline),
      end_wal: segment(end, timeline),
      begin_xlog: lsn(begin, 0x28),
      end_xlog: lsn(end, 0x138),
      timeline: String(timeline),
      ...known.fields,
    }),
    ...Object.fromEntries(archives.map((name) => [`base/${id}/${name}`, `content of ${name}`])),
    ...(keep === undefined ? {} : { [`base/${id}/annotations/keep`]: keep }),
  });
}

/** Fields of a backup that failed right after its start. */
export const FAILED: Readonly<Record<string, string | undefined>> = {
  status: "FAILED",
  error: "failure uploading data (it broke)",
  end_time: "None",
  end_wal: "None",
  end_xlog: "None",
  end_offset: "None",
  backup_label: "None",
  copy_stats: "None",
};

export const SNAPSHOTS =
  "{'provider': 'aws', 'provider_info': {'account_id': '123456789012', 'region': 'eu-west-1'}, " +
  "'snapshots': [{'mount': {'mount_options': 'rw,noatime', 'mount_point': '/opt/postgres'}, " +
  "'provider': {'device_name': '/dev/sdf', 'snapshot_id': 'snap-0a1', " +
  "'snapshot_name': 'data-20260108t000000', 'snapshot_lock_mode': None}}]}";

/** One of each kind of backup, and WAL around them. */
export const catalogue: State = together(
  backup({
    id: "20260101T000000",
    fields: { backup_name: "first one", included_files: "['/srv/a.conf', '/srv/b.conf']" },
    archives: ["data.tar.gz", "data_0001.tar.gz"],
  }),
  backup({ id: "20260102T000000", segments: [4, 5], keep: "standalone" }),
  backup({
    id: "20260103T000000",
    segments: [6, 6],
    fields: { ...FAILED, backup_name: "broken" },
  }),
  backup({ id: "20260104T000000", segments: [8, 8], fields: { backup_name: "twice" } }),
  backup({
    id: "20260105T000000",
    segments: [254, 257],
    fields: {
      backup_name: "twice",
      tablespaces: "[('ts1', 16384, '/srv/ts1'), ('größer', 16385, '/srv/it\\'s')]",
      version: "170002",
      summarize_wal: "on",
      pgdata: "/srv/größe",
    },
    archives: ["data.tar", "16384.tar", "16384_0001.tar", "16385.tar"],
    keep: "full",
  }),
  // Begun and not finished.
  objects({ "base/20260106T000000/data.tar": "x" }),
  // As written before 3.11: fewer fields.
  backup({
    id: "20260107T000000",
    segments: [260, 260],
    timeline: 2,
    fields: {
      children_backup_ids: undefined,
      parent_backup_id: undefined,
      cluster_size: undefined,
      data_checksums: undefined,
      summarize_wal: undefined,
      encryption: undefined,
      end_time: "2026-01-07 05:30:31.5+05:30",
      begin_time: "2026-01-07 05:30:01+05:30",
    },
  }),
  backup({
    id: "20260108T000000",
    segments: [262, 262],
    timeline: 2,
    fields: { server_name: "main", snapshots_info: SNAPSHOTS },
    archives: ["backup_label"],
  }),
  // As a Barman server's hook stores it.
  backup({
    id: "20260109T000000",
    segments: [264, 264],
    timeline: 2,
    fields: {
      server_name: "pg",
      mode: "rsync-concurrent",
      size: "23456789",
      deduplicated_size: "12345678",
      compression: "gzip",
      encryption: "gpg",
    },
  }),
  wals(
    ...[1, 2, 3, 4, 5, 6, 7, 8, 254, 255, 256, 257, 258].map((number) => segment(number)),
    `${segment(2)}.00000028.backup`,
    `${segment(258)}.partial`,
    "00000002.history",
    ...[259, 260, 261, 262, 263, 264].map((number) => `${segment(number, 2)}.gz`),
  ),
);

function lsn(number: number, offset: number): string {
  const low = (number % 256) * 0x1000000 + offset;
  return `${Math.floor(number / 256).toString(16).toUpperCase()}/${low.toString(16).toUpperCase()}`;
}
