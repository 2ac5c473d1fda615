/** Command lines that leave the bucket as it is. */
import { COMMANDS } from "./commands.ts";
import type { Case, Outcome } from "./side_by_side.ts";
import { backup, catalogue, empty, FAILED, infoText, objects, together, wals } from "./states.ts";

const SERVER = ["URL", "main"];

/** Positionals that are complete for each command. */
const COMPLETE: Readonly<Record<(typeof COMMANDS)[number], readonly string[]>> = {
  "backup": SERVER,
  "backup-delete": [...SERVER, "-b", "20260101T000000"],
  "backup-keep": [...SERVER, "20260101T000000", "--status"],
  "backup-list": SERVER,
  "backup-show": [...SERVER, "20260101T000000"],
  "check-wal-archive": SERVER,
  "restore": [...SERVER, "20260101T000000", "DIR/data"],
  "wal-archive": [...SERVER, "000000010000000000000001"],
  "wal-restore": [...SERVER, "000000010000000000000001", "DIR/wal"],
};

const unreadable = together(
  backup({ id: "20260101T000000" }),
  objects({ "base/20260102T000000/backup.info": "this is not a backup.info\n" }),
  backup({ id: "20260103T000000" }),
);
const unknownField = together(
  backup({ id: "20260101T000000" }),
  backup({ id: "20260102T000000", fields: { from_the_future: "1" } }),
);
const strangers = together(
  backup({ id: "20260101T000000" }),
  objects({
    "base/stray": "x",
    "base/20260102T000000/backup.info/deeper": "x",
    "base/not-an-id/backup.info": infoText(),
  }),
);
const oddValues = together(
  backup({ id: "20260101T000000", fields: { backup_name: "None" } }),
  backup({ id: "20260102T000000", fields: { status: "WAITING_FOR_WALS" } }),
  backup({ id: "20260103T000000", fields: { status: "EMPTY" } }),
  backup({ id: "20260104T000000", fields: { begin_time: "Sun Jan  4 10:30:01 2026" } }),
  backup({ id: "20260105T000000", fields: { end_time: "2026-01-05T10:30:01.5Z" } }),
  backup({
    id: "20260106T000000",
    fields: { cluster_size: "1023", copy_stats: "{'copy_time': 0.4}" },
  }),
  backup({
    id: "20260107T000000",
    fields: { cluster_size: "1125899906842624", copy_stats: "{'copy_time': 93784.9}" },
  }),
  backup({
    id: "20260108T000000",
    fields: { copy_stats: "{'analysis_time': 61.2, 'copy_time': 60.0}", data_checksums: "None" },
  }),
  backup({ id: "20260109T000000", fields: { mode: "postgres", children_backup_ids: "A,B" } }),
  backup({
    id: "20260113T000000",
    fields: { backup_name: "a name that is longer than seventeen" },
  }),
);
const oddKeeps = together(
  backup({ id: "20260110T000000", keep: "standalone\n" }),
  backup({ id: "20260111T000000", keep: "" }),
  backup({ id: "20260112T000000", keep: "something" }),
);
const twoKinds = wals(
  "000000010000000000000001",
  "000000010000000000000001.partial",
  "000000010000000000000002",
  "000000010000000000000002.00000028.backup.gz",
);
const failedLast = together(
  backup({ id: "20260101T000000" }),
  backup({ id: "20260102T000000", fields: FAILED }),
);
const complete = together(
  backup({ id: "20260101T000000" }),
  backup({ id: "20260102T000000", segments: [4, 4] }),
);
const IDS = [
  ...["20260101T000000", "20260102T000000", "20260103T000000", "20260104T000000"],
  ...["20260105T000000", "20260107T000000", "20260108T000000", "20260109T000000"],
];

const UNKNOWN_FIELD_LISTED = [
  "Backup ID           End Time                 Begin Wal                     Archival Status  Name                ",
  "20260101T000000     2026-01-01 00:00:31      000000010000000000000002                                           ",
  "20260102T000000     2026-01-02 00:00:31      000000010000000000000002                                           ",
  "",
].join("\n");

/** Some that differ on purpose. */
const DIFFERENT: readonly Case[] = [
  ...different("keep-trimmed", "backup-keep", oddKeeps, {
    "status with a line end": [
      [...SERVER, "20260110T000000", "-s"],
      { stdout: "Keep: standalone\n" },
      { stdout: "Keep: standalone\n\n" },
    ],
  }),
  ...different("keep-empty", "backup-keep", oddKeeps, {
    "status, empty": [
      [...SERVER, "20260111T000000", "-s"],
      { stdout: "Keep: full\n" },
      { stdout: "Keep: nokeep\n" },
    ],
  }),
  ...different("keep-slash", "backup-keep", catalogue, {
    "status by a URL with a slash at the end": [
      ["URL/", "main", "20260102T000000", "-s"],
      { stdout: "Keep: standalone\n" },
      { stdout: "Keep: nokeep\n" },
    ],
  }),
  ...different("unknown-field", "backup-list", unknownField, {
    "a field of a later Barman": [SERVER, { code: 0, stdout: UNKNOWN_FIELD_LISTED }, {
      code: 1,
      stdout: "",
    }],
  }),
  ...different("auto-done", "restore", catalogue, {
    "auto before the first, with a failed one": [
      [...SERVER, "auto", "--target-time", "2020-01-01", "DIR/data"],
      { code: 1 },
      { code: 4 },
    ],
    "auto with an LSN before the first, with a failed one": [
      [...SERVER, "auto", "--target-lsn", "0/1", "DIR/data"],
      { code: 1 },
      { code: 4 },
    ],
  }),
  ...different("restore-label", "wal-restore", catalogue, {
    "backup label": [
      [...SERVER, "000000010000000000000002.00000028.backup", "DIR/wal"],
      { code: 0, files: { wal: "content of 000000010000000000000002.00000028.backup" } },
      { code: 1, files: {} },
    ],
  }),
  ...different("restore-atomic", "wal-restore", catalogue, {
    "not really compressed": [
      [...SERVER, "000000020000000100000003", "DIR/wal"],
      { files: {} },
      { files: { wal: "" } },
    ],
  }),
];

export const READING: readonly Case[] = [
  ...DIFFERENT,
  ...reading("restore", complete, {
    "auto before the first": [...SERVER, "auto", "--target-time", "2020-01-01", "DIR/data"],
    "auto with an LSN before the first": [...SERVER, "auto", "--target-lsn", "0/1", "DIR/data"],
  }),
  ...reading("backup-list", catalogue, {
    "table": SERVER,
    "JSON": [...SERVER, "--format", "json"],
    "JSON, by another word": [...SERVER, "--format", "whatever"],
    "of a server that has nothing": ["URL", "other"],
    "JSON of a server that has nothing": ["URL", "other", "--format", "json"],
  }),
  ...reading("backup-list", unreadable, { "a backup.info is garbage": SERVER }),
  ...reading("backup-list", strangers, {
    "keys that are no backups": [...SERVER, "--format=json"],
  }),
  ...reading("backup-list", oddValues, {
    "odd values": SERVER,
    "odd values, JSON": [...SERVER, "--format=json"],
  }),
  ...IDS.flatMap((id) =>
    reading("backup-show", catalogue, {
      [`text of ${id}`]: [...SERVER, id],
      [`JSON of ${id}`]: [...SERVER, id, "--format", "json"],
    })
  ),
  ...reading("backup-show", oddValues, {
    ...Object.fromEntries(
      Array.from({ length: 9 }, (_, index) => `2026010${index + 1}T000000`).map((id) => [
        `odd values of ${id}`,
        [...SERVER, id],
      ]),
    ),
  }),
  ...reading("backup-show", catalogue, {
    "by name": [...SERVER, "first one"],
    "first": [...SERVER, "first"],
    "oldest": [...SERVER, "oldest", "--format=json"],
    "last": [...SERVER, "last"],
    "latest": [...SERVER, "latest", "--format=json"],
    "last-failed": [...SERVER, "last-failed"],
    "last-full": [...SERVER, "last-full"],
    "latest-full": [...SERVER, "latest-full"],
    "auto": [...SERVER, "auto"],
    "a name that two have": [...SERVER, "twice"],
    "an unknown name": [...SERVER, "nobody"],
    "an id that is not there": [...SERVER, "20250101T000000"],
    "an id without backup.info": [...SERVER, "20260106T000000"],
    "an empty name": [...SERVER, ""],
  }),
  ...reading("backup-show", empty, { "first of nothing": [...SERVER, "first"] }),
  ...reading("backup-keep", catalogue, {
    "status, not kept": [...SERVER, "20260101T000000", "--status"],
    "status, standalone": [...SERVER, "20260102T000000", "-s"],
    "status, full": [...SERVER, "20260105T000000", "--status"],
    "status by name": [...SERVER, "first one", "--status"],
    "status of an id that is not there": [...SERVER, "20250101T000000", "--status"],
    "status of an unknown name": [...SERVER, "nobody", "--status"],
    "neither": [...SERVER, "20260101T000000"],
    "two at once": [...SERVER, "20260101T000000", "-s", "-r"],
    "a bad target": [...SERVER, "20260101T000000", "--target", "half"],
  }),
  ...reading("backup-keep", oddKeeps, {
    "status, something": [...SERVER, "20260112T000000", "-s"],
  }),
  ...reading("restore", catalogue, {
    "an id that is not there": [...SERVER, "20250101T000000", "DIR/data"],
    "an unknown name": [...SERVER, "nobody", "DIR/data"],
    "a shortcut that finds nothing": ["URL", "other", "last", "DIR/data"],
    "auto of nothing": ["URL", "other", "auto", "DIR/data"],
    "auto, current timeline": [...SERVER, "auto", "--target-tli", "current", "DIR/data"],
    "auto, timeline without backups": [...SERVER, "auto", "--target-tli", "9", "DIR/data"],
    "auto, timeline zero": [...SERVER, "auto", "--target-tli", "0", "DIR/data"],
    "a bad timeline": [...SERVER, "auto", "--target-tli", "x", "DIR/data"],
    "a bad time": [...SERVER, "auto", "--target-time", "yesteryear", "DIR/data"],
    "a bad LSN": [...SERVER, "auto", "--target-lsn", "zz", "DIR/data"],
    "LSN and time": [
      ...[...SERVER, "auto", "--target-lsn", "0/1", "--target-time", "2020-01-01", "DIR/data"],
    ],
    "a rule without colon": [...SERVER, "20260105T000000", "--tablespace", "ts1", "DIR/data"],
    "snapshots without an instance": [...SERVER, "20260108T000000", "DIR/data"],
    "snapshots with a tablespace rule": [
      ...[...SERVER, "20260108T000000", "--tablespace", "a:/b", "DIR/data"],
    ],
    "without a directory": [...SERVER, "20260101T000000"],
  }),
  {
    name: "into a directory that has something",
    command: "restore",
    words: [...SERVER, "20260101T000000", "DIR/data"],
    files: { "data/file": "x" },
    state: catalogue,
    reads: true,
  },
  ...reading("restore", backup({ id: "20260101T000000", archives: [] }), {
    "an archive is missing": [...SERVER, "20260101T000000", "DIR/data"],
  }),
  ...reading("backup-delete", catalogue, {
    "neither id nor policy": SERVER,
    "both": [...SERVER, "-b", "20260101T000000", "-r", "REDUNDANCY 1"],
    "an empty id": [...SERVER, "-b", ""],
    "a bad policy": [...SERVER, "-r", "KEEP IT"],
    "policy main": [...SERVER, "-r", "main"],
    "a bad number": [...SERVER, "-b", "20260101T000000", "-m", "-1"],
    "an id that is not there": [...SERVER, "-b", "20250101T000000"],
    "an unknown name": [...SERVER, "-b", "nobody"],
    "a name that two have": [...SERVER, "-b", "twice"],
    "a kept backup": [...SERVER, "-b", "20260102T000000"],
    "below the minimum redundancy": [...SERVER, "-b", "20260101T000000", "-m", "8"],
    "dry run of the first": [...SERVER, "-b", "20260101T000000", "--dry-run"],
    "dry run by name": [...SERVER, "-b", "first one", "--dry-run"],
    "dry run of the last": [...SERVER, "-b", "last", "--dry-run"],
    "dry run of snapshots": [...SERVER, "-b", "20260108T000000", "--dry-run"],
    "dry run of a failed one": [...SERVER, "-b", "last-failed", "--dry-run"],
    "dry run, redundancy 1": [...SERVER, "-r", "REDUNDANCY 1", "--dry-run"],
    "dry run, redundancy 4": [...SERVER, "-r", "redundancy 4", "--dry-run"],
    "dry run, redundancy raised": [...SERVER, "-r", "REDUNDANCY 1", "-m", "4", "--dry-run"],
    "dry run, recovery window": [...SERVER, "-r", "RECOVERY WINDOW OF 1 DAYS", "--dry-run"],
    "dry run, window with a minimum": [
      ...[...SERVER, "-r", " recovery  window of 1 weeks ", "-m", "3", "--dry-run"],
    ],
    "dry run, long window": [...SERVER, "-r", "RECOVERY WINDOW OF 1000 MONTHS", "--dry-run"],
    "dry run of a server that has nothing": ["URL", "other", "-r", "REDUNDANCY 1", "--dry-run"],
  }),
  ...reading("backup-delete", unreadable, {
    "a backup.info is garbage": [...SERVER, "-b", "20260101T000000"],
  }),
  ...reading("check-wal-archive", catalogue, {
    "with WAL": SERVER,
    "from timeline 2 on": [...SERVER, "--timeline", "2"],
    "from timeline 3 on": [...SERVER, "--timeline", "3"],
    "timeline 0": [...SERVER, "--timeline", "0"],
    "a bad timeline": [...SERVER, "--timeline", "x"],
    "a server that has nothing": ["URL", "other"],
  }),
  ...reading(
    "check-wal-archive",
    objects({ "wals/00000001000000000000000A.zip": "x", "wals/x": "x" }),
    {
      "objects that are no WAL": SERVER,
    },
  ),
  ...reading("check-wal-archive", objects({ "wals/0000000A.history": "x" }), {
    "only a history file": SERVER,
    "a history file of timeline 10": [...SERVER, "--timeline", "10"],
    "a history file below timeline 11": [...SERVER, "--timeline", "11"],
  }),
  ...reading("restore", failedLast, {
    "the last, which failed": [...SERVER, "last", "DIR/data"],
    "auto, the last failed": [...SERVER, "auto", "DIR/data"],
    "a failed one by its id": [...SERVER, "20260102T000000", "DIR/data"],
    // Before, nothing was made in the destination.
  }).map((each): Case => ({ ...each, since: [3, 20] })),
  ...reading("wal-restore", twoKinds, {
    "complete and partial, plain": [...SERVER, "000000010000000000000001", "DIR/wal"],
    "plain, beside a compressed backup label": [
      ...[...SERVER, "000000010000000000000002", "DIR/wal"],
    ],
  }),
  ...reading("wal-restore", catalogue, {
    "plain": [...SERVER, "000000010000000000000002", "DIR/wal"],
    "history": [...SERVER, "00000002.history", "DIR/wal"],
    "partial": [...SERVER, "000000010000000100000002", "DIR/wal", "--no-partial"],
    "not there": [...SERVER, "0000000100000000000000F0", "DIR/wal"],
    "only a partial one": [...SERVER, "000000010000000100000003", "DIR/wal"],
    "an invalid name": [...SERVER, "pg_wal", "DIR/wal"],
    "no destination": [...SERVER, "000000010000000000000002"],
    "destination in no directory": [...SERVER, "000000010000000000000002", "DIR/no/wal"],
    "destination is a directory": [...SERVER, "000000010000000000000002", "DIR"],
    "a name with small letters": [...SERVER, "0000000100000000000000fe", "DIR/wal"],
  }),
  ...reading("wal-archive", empty, {
    "without a path": SERVER,
    "an invalid name": [...SERVER, "DIR/x"],
    "no such file": [...SERVER, "DIR/000000010000000000000001"],
    "two compressions": [...SERVER, "-z", "--xz", "DIR/000000010000000000000001"],
    "a bad level": [...SERVER, "-z", "--compression-level", "best", "DIR/000000010000000000000001"],
    "a bad tag": [...SERVER, "--tag", "nocomma", "DIR/000000010000000000000001"],
    "tag and tags": [
      ...[...SERVER, "DIR/000000010000000000000001", "--tag", "a,b", "--tags", "c,d"],
    ],
    "KMS key without encryption": [
      ...[...SERVER, "DIR/000000010000000000000001", "--sse-kms-key-id", "k"],
    ],
    "a bad encryption": [...SERVER, "-e", "rot13", "DIR/000000010000000000000001"],
  }),
  ...reading("backup", empty, {
    "two compressions": [...SERVER, "-z", "-j"],
    "a bad size": [...SERVER, "-S", "big"],
    "no jobs": [...SERVER, "-J", "0"],
    "a name that is an id": [...SERVER, "-n", "20260101T000000"],
    "a reserved name": [...SERVER, "-n", "last"],
    "an empty name": [...SERVER, "-n", ""],
    "a bad tag": [...SERVER, "--tag", "aws:x,b"],
    "the same tag twice": [...SERVER, "--tag", "a,b", "--tag", "a,c"],
    "eleven tags": [
      ...SERVER,
      ...Array.from({ length: 11 }, (_, index) => ["--tag", `k${index},v`]).flat(),
    ],
    "KMS key without encryption": [...SERVER, "--sse-kms-key-id", "k"],
    "snapshots and compression": [
      ...SERVER,
      "-z",
      "--snapshot-disk",
      "d",
      "--snapshot-instance",
      "i",
    ],
    "no PostgreSQL": [...SERVER, "-h", "/nowhere"],
    "no database": [...SERVER, "-d", "host=127.0.0.1 port=1 connect_timeout=2"],
  }),
  ...reading("backup", empty, {
    "a bad interval": [...SERVER, "--keepalive-interval", "-1"],
    "no interval": [...SERVER, "--keepalive-interval", "0", "-h", "/nowhere"],
    "a customer's key that is not there": [...SERVER, "--sse-customer-key", "file:///nowhere"],
  }).map((each): Case => ({ ...each, since: [3, 20] })),
  {
    name: "as a hook that is none",
    command: "backup",
    words: SERVER,
    state: empty,
    reads: true,
    env: { BARMAN_HOOK: "archive_script", BARMAN_PHASE: "pre" },
  },
  {
    name: "as a hook of a backup that failed",
    command: "backup",
    words: SERVER,
    state: empty,
    reads: true,
    env: {
      BARMAN_HOOK: "backup_script",
      BARMAN_PHASE: "post",
      BARMAN_BACKUP_DIR: "/nowhere",
      BARMAN_BACKUP_ID: "20260101T000000",
      BARMAN_BACKUP_INFO_PATH: "/nowhere/backup.info",
      BARMAN_STATUS: "FAILED",
    },
  },
  ...COMMANDS.flatMap((command): Case[] => {
    const words = COMPLETE[command];
    const reads = true;
    return [
      { name: "-t", command, words: [...words, "-t"], state: empty, reads },
      { name: "-t, no bucket", command, words: [...words, "-t"], state: "missing" },
      {
        name: "-t, nobody listens",
        command,
        words: [...words, "-t"],
        state: "missing",
        connection: ["--endpoint-url", "http://127.0.0.1:1"],
      },
      {
        name: "-t, wrong credentials",
        command,
        words: [...words, "--test"],
        state: empty,
        reads,
        env: { AWS_SECRET_ACCESS_KEY: "wrong" },
      },
      {
        name: "wrong credentials",
        command,
        words: command === "backup" ? [...words, "-h", "/nowhere"] : words,
        state: catalogue,
        reads,
        env: { AWS_SECRET_ACCESS_KEY: "wrong" },
        ...(command === "wal-archive" ? { files: { "000000010000000000000001": "x" } } : {}),
        // Before, it answered from what another call had left in its spool.
        ...(command === "wal-restore" ? { since: [3, 20] as const } : {}),
      },
      {
        name: "nobody listens",
        command,
        words,
        state: "missing",
        connection: ["--endpoint-url", "http://127.0.0.1:1"],
        // Before, wal-restore's code for a store that can't be reached was 4.
        ...(command === "wal-restore" ? { since: [3, 20] as const } : {}),
      },
      {
        name: "a URL of another kind",
        command,
        words: replaceUrl(words, "ftp://x/y"),
        state: "missing",
      },
      {
        name: "a URL without bucket",
        command,
        words: replaceUrl(words, "s3:///y"),
        state: "missing",
      },
      { name: "no words at all", command, words: [], connection: [], state: "missing" },
      { name: "an unknown option", command, words: [...words, "--no-such"], state: "missing" },
      { name: "an ambiguous option", command, words: [...words, "--e"], state: "missing" },
      { name: "-v and -q", command, words: [...words, "-v", "-q"], state: "missing" },
      { name: "-h is not help", command, words: [...words, "-h"], state: "missing" },
      ...(command === "check-wal-archive" ? [] : [
        {
          name: "no bucket",
          command,
          words,
          state: "missing" as const,
          ...(command === "wal-restore" ? { since: [3, 20] as const } : {}),
        },
      ]),
    ];
  }),
];

function reading(
  command: Case["command"],
  state: Case["state"],
  named: Readonly<Record<string, readonly string[]>>,
): Case[] {
  return Object.entries(named).map(([name, words]) => ({
    name,
    command,
    words,
    state,
    reads: true,
  }));
}

/** Name → words, what of the outcome is so with ours, and so with Barman. */
function different(
  id: string,
  command: Case["command"],
  state: Case["state"],
  named: Readonly<Record<string, [readonly string[], Partial<Outcome>, Partial<Outcome>]>>,
): Case[] {
  return Object.entries(named).map(([name, [words, ours, barman]]) => ({
    name,
    command,
    words,
    state,
    reads: true,
    differs: { id, ours, barman },
  }));
}

function replaceUrl(words: readonly string[], url: string): string[] {
  return words.map((word) => word === "URL" ? url : word);
}
