/** Command lines that change the bucket. */
import type { Case } from "./side_by_side.ts";
import {
  backup,
  catalogue,
  empty,
  FAILED,
  objects,
  segment,
  type State,
  together,
  walKey,
  wals,
} from "./states.ts";

const SERVER = ["URL", "main"];
const first = "20260101T000000";
const second = "20260102T000000";
const third = "20260103T000000";

/** Three backups; WAL before, between and after them, in two directories of 256 segments and on two timelines. */
const archive = wals(
  ...[1, 2, 3, 200, 256, 300, 301, 302].map((number) => segment(number)),
  ...[303, 304].map((number) => segment(number, 2)),
  `${segment(2)}.00000028.backup`,
  `${segment(301)}.00000028.backup.gz`,
  `${segment(302)}.partial`,
  "00000002.history",
);
const three = (keeps: Readonly<Record<string, string>> = {}): State =>
  together(
    ...([[first, 2], [second, 301], [third, 302]] as const).map(([id, number]) => {
      const keep = keeps[id];
      const known = { id, segments: [number, number] as const };
      return backup(keep === undefined ? known : { ...known, keep });
    }),
    archive,
  );
const otherTimeline = together(
  backup({ id: first, segments: [2, 2] }),
  backup({ id: second, segments: [303, 303], timeline: 2 }),
  archive,
);
const withFailed = together(
  backup({ id: first, segments: [2, 2] }),
  backup({ id: second, segments: [301, 301], fields: FAILED }),
  backup({ id: third, segments: [302, 302] }),
  archive,
);
const recent = (() => {
  const day = (ago: number) => {
    const time = new Date(Date.now() - ago * 86_400_000).toISOString();
    return time.slice(0, 19).replace(/[-:]/g, "");
  };
  return together(
    ...[40, 33, 20, 8, 6, 1].map((ago, index) =>
      backup({ id: day(ago), segments: [10 * index + 2, 10 * index + 2] })
    ),
    wals(...Array.from({ length: 30 }, (_, index) => segment(2 * index + 1))),
  );
})();
const malformed = together(
  three(),
  objects({ "wals/strange/x": "x", "wals/0000000100000000/README": "x", "wals/x": "x" }),
);
const twice = together(
  three(),
  objects({ [walKey(`${segment(3)}.gz`)]: "x", [walKey(`${segment(256)}.zst`)]: "x" }),
);

const SEGMENT = "000000010000000000000001";
const WAL = { [SEGMENT]: "some WAL", "00000002.history": "1\t0/1\n" };

const KEYS = {
  key: `${btoa("k".repeat(32))}\n`,
  short: btoa("k".repeat(31)),
  raw: "k".repeat(32),
};

export const CHANGING: readonly Case[] = [
  ...changing("backup-delete", three(), {
    "the first": [...SERVER, "-b", first],
    "the second": [...SERVER, "-b", second],
    "the last": [...SERVER, "-b", "last"],
    "one object at a time": [...SERVER, "-b", first, "--batch-size", "1"],
    "far too large a batch": [...SERVER, "-b", first, "--batch-size", "100000"],
    "no batch": [...SERVER, "-b", first, "--batch-size", "0"],
    "with a look at object locks": [...SERVER, "-b", first, "--check-object-lock"],
    "at the minimum redundancy": [...SERVER, "-b", first, "-m", "2"],
    "below the minimum redundancy": [...SERVER, "-b", first, "-m", "3"],
    "redundancy 1": [...SERVER, "-r", "REDUNDANCY 1"],
    "redundancy 2": [...SERVER, "-r", "REDUNDANCY 2"],
    "redundancy 0": [...SERVER, "-r", "REDUNDANCY 0"],
    "redundancy 0 with a minimum": [...SERVER, "-r", "REDUNDANCY 0", "-m", "2"],
    "a window of no days": [...SERVER, "-r", "RECOVERY WINDOW OF 0 DAYS"],
  }),
  ...changing("backup-delete", three({ [second]: "standalone" }), {
    "before a standalone one": [...SERVER, "-b", first],
    "after a standalone one": [...SERVER, "-b", third],
    "redundancy 1 with a standalone one": [...SERVER, "-r", "REDUNDANCY 1"],
  }),
  ...changing("backup-delete", three({ [first]: "standalone" }), {
    "between standalone and last": [...SERVER, "-b", second],
    "policy between standalone and last": [...SERVER, "-r", "REDUNDANCY 1"],
  }),
  ...changing("backup-delete", three({ [first]: "full" }), {
    "between full and last": [...SERVER, "-b", second],
    "policy between full and last": [...SERVER, "-r", "REDUNDANCY 1"],
    "a kept one": [...SERVER, "-b", first],
  }),
  ...changing("backup-delete", otherTimeline, {
    "the last of a timeline": [...SERVER, "-b", first],
    "the newest timeline": [...SERVER, "-b", second],
    "policy over timelines": [...SERVER, "-r", "REDUNDANCY 1"],
  }),
  ...changing("backup-delete", withFailed, {
    "the first, before a failed one": [...SERVER, "-b", first],
    "the failed one": [...SERVER, "-b", "last-failed"],
    "policy with a failed one": [...SERVER, "-r", "REDUNDANCY 1"],
  }),
  ...changing("backup-delete", recent, {
    "a week": [...SERVER, "-r", "RECOVERY WINDOW OF 1 WEEK"],
    "7 days": [...SERVER, "-r", "recovery window of 7 days"],
    "a month": [...SERVER, "-r", "RECOVERY WINDOW OF 1 MONTHS"],
    "a week, at least 5": [...SERVER, "-r", "RECOVERY WINDOW OF 1 WEEKS", "-m", "5"],
    "2 days": [...SERVER, "-r", "RECOVERY WINDOW OF 2 DAYS"],
  }),
  ...changing("backup-delete", malformed, {
    "with strangers among the WAL": [...SERVER, "-b", first],
  }),
  ...changing("backup-delete", catalogue, { "of a mixed catalogue": [...SERVER, "-b", first] }),
  ...changing("backup-delete", backup({ id: first }), {
    "the only one, without WAL": [...SERVER, "-b", first],
  }),
  ...changing("backup-keep", catalogue, {
    "keep full": [...SERVER, first, "--target", "full"],
    "keep standalone, by name": [...SERVER, "first one", "--target=standalone"],
    "from standalone to full": [...SERVER, "20260102T000000", "--target", "full"],
    "release": [...SERVER, "20260102T000000", "--release"],
    "release what is not kept": [...SERVER, first, "-r"],
    "release an id that is not there": [...SERVER, "20250101T000000", "-r"],
    "keep a failed one": [...SERVER, "20260103T000000", "--target", "full"],
    "keep an id that is not there": [...SERVER, "20250101T000000", "--target", "full"],
    "keep a snapshot backup": [...SERVER, "20260108T000000", "--target", "full"],
  }),
  ...changing("backup-keep", backup({ id: first }), {
    "keep by a URL with a slash at the end": ["URL/", "main", first, "--target", "full"],
  }),
  ...changing("check-wal-archive", empty, { "empty": SERVER }),
  ...archiving("wal-archive", {
    "plain": [...SERVER, `DIR/${SEGMENT}`],
    "by a relative path": [...SERVER, SEGMENT],
    "history": [...SERVER, "00000002.history"],
    "into the top of a bucket": ["s3://BUCKET", "main", SEGMENT],
    "into a deep path with slash": ["URL/a/b/", "main", SEGMENT],
    "with tags": [...SERVER, SEGMENT, "--tag", "a,b c", "--tag", "d,e"],
    "abbreviated options": [...SERVER, SEGMENT, "--cloud", "aws-s3"],
    "the profile's old spelling is not there": [...SERVER, SEGMENT, "--profile", "nobody"],
  }),
  ...changing("wal-archive", empty, {
    "a customer's key by its path": [...SERVER, SEGMENT, "--sse-customer-key", "DIR/key"],
    "a customer's key that is not there": [
      ...SERVER,
      SEGMENT,
      "--sse-customer-key",
      "file://DIR/no",
    ],
    "a customer's key of 31 bytes": [...SERVER, SEGMENT, "--sse-customer-key", "file://DIR/short"],
    "a customer's key not in base64": [...SERVER, SEGMENT, "--sse-customer-key", "file://DIR/raw"],
    "a customer's key and AES256": [
      ...[...SERVER, SEGMENT, "--sse-customer-key", "file://DIR/key", "-e", "AES256"],
    ],
  }).map((each): Case => ({ ...each, since: [3, 20], files: { ...WAL, ...KEYS } })),
  {
    name: "as a hook of Barman",
    command: "wal-archive",
    words: SERVER,
    state: empty,
    files: WAL,
    env: { BARMAN_HOOK: "archive_script", BARMAN_PHASE: "pre", BARMAN_FILE: SEGMENT },
  },
  {
    name: "as a hook that is none",
    command: "wal-archive",
    words: [...SERVER, SEGMENT],
    state: empty,
    files: WAL,
    env: { BARMAN_HOOK: "backup_script", BARMAN_PHASE: "pre", BARMAN_FILE: SEGMENT },
  },
  {
    name: "over an equal one",
    command: "wal-archive",
    words: [...SERVER, SEGMENT],
    state: objects({ [walKey(SEGMENT)]: "some WAL" }),
    files: WAL,
  },
  {
    name: "over another one",
    command: "wal-archive",
    words: [...SERVER, SEGMENT],
    state: objects({ [walKey(SEGMENT)]: "other WAL" }),
    files: WAL,
    differs: {
      id: "wal-conflict",
      ours: { code: 4, objects: { [`p/main/${walKey(SEGMENT)}`]: "other WAL" } },
      barman: { code: 0, objects: { [`p/main/${walKey(SEGMENT)}`]: "some WAL" } },
    },
  },
  {
    name: "segments that are there twice",
    command: "backup-delete",
    words: [...SERVER, "-b", first],
    state: twice,
    differs: {
      id: "duplicate-wal",
      ours: {},
      barman: {},
      leftByBarman: [`p/main/${walKey(segment(256))}`],
    },
  },
];

function changing(
  command: Case["command"],
  state: State,
  named: Readonly<Record<string, readonly string[]>>,
): Case[] {
  return Object.entries(named).map(([name, words]) => ({ name, command, words, state }));
}

function archiving(
  command: Case["command"],
  named: Readonly<Record<string, readonly string[]>>,
): Case[] {
  return changing(command, empty, named).map((each) => ({ ...each, files: WAL }));
}
