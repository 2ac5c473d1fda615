/** docs/json.md tells the fields that the commands print, their order, types and nulls, and who reads them. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { command as cleanup } from "../../lib/commands/cleanup.ts";
import { COMMANDS } from "../../lib/cli/commands.ts";
import { command as deleteCommand } from "../../lib/commands/backup_delete.ts";
import { command as keep } from "../../lib/commands/backup_keep.ts";
import { command as verify } from "../../lib/commands/backup_verify.ts";
import { command as verifyWal } from "../../lib/commands/wal_verify.ts";
import { command as list } from "../../lib/commands/backup_list.ts";
import { command as show } from "../../lib/commands/backup_show.ts";
import { command as version } from "../../lib/commands/version.ts";
import { CLOUDNATIVE_PG_FIELDS, POSTGRES_FLEX_FIELDS } from "../callers/parsing.ts";
import { AWS_SNAPSHOTS, FAILED_LINES, PLAIN, WITH_TABLESPACES } from "../lib/backup/fixtures.ts";
import { type TemporaryStore, temporaryStore } from "../lib/backup/temporary_store.ts";
import { runWords } from "../lib/commands/run_words.ts";
import { dataArchive } from "../lib/restore/fixtures.ts";
import { member } from "../lib/restore/raw_tar.ts";

interface DocumentedField {
  readonly name: string;
  readonly type: string;
  readonly null: "yes" | "no" | "omitted";
  readonly example: string;
  readonly readBy: readonly string[];
}

const DOCUMENT = await readFile(
  fileURLToPath(new URL("../../docs/json.md", import.meta.url)),
  "utf8",
);

/** The rows of the table under a heading. */
function documented(heading: string): DocumentedField[] {
  const section = DOCUMENT.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  assert.ok(section !== undefined, heading);
  const rows = section.split("\n").filter((line) => line.startsWith("|"))
    .map((line) => line.slice(1, -1).split("|").map((cell) => cell.trim()));
  const [names = [], , ...cells] = rows;
  return cells.map((row) => {
    const cell = (name: string) => row[names.indexOf(name)] ?? "";
    const isNull = cell("null?");
    assert.ok(isNull === "yes" || isNull === "no" || isNull === "omitted", row.join());
    return {
      name: cell("field").replaceAll("`", ""),
      type: cell("type"),
      null: isNull,
      example: cell("example").replace(/^`(.*)`$/, "$1"),
      readBy: cell("read by").split(" ").filter(Boolean),
    };
  });
}

function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return Number.isInteger(value) ? "integer" : typeof value;
}

/** Documented fields are those that are there, in that order, with those types. */
function compare(fields: readonly DocumentedField[], value: unknown, mayBeNull: boolean): void {
  assert.ok(typeof value === "object" && value !== null);
  const items: Readonly<Record<string, unknown>> = { ...value };
  assert.deepEqual(
    Object.keys(items),
    fields.map(({ name }) => name).filter((name) => name in items),
  );
  for (const { name, type, null: isNull } of fields) {
    const item = items[name];
    if (item === undefined) assert.ok(isNull === "omitted", `${name} is left out`);
    else if (item === null) assert.ok(isNull === "yes" || mayBeNull, `${name} is null`);
    else assert.equal(typeOf(item), type, name);
  }
}

async function json(
  temporary: TemporaryStore,
  command: Parameters<typeof runWords>[0],
  ...words: string[]
): Promise<unknown> {
  return await jsonWith(0, temporary, command, ...words);
}

async function jsonWith(
  expected: number,
  temporary: TemporaryStore,
  command: Parameters<typeof runWords>[0],
  ...words: string[]
): Promise<unknown> {
  const { code, stdout, log } = await runWords(
    command,
    temporary.url,
    "srv",
    "--format",
    "json",
    ...words,
  );
  assert.equal(code, expected, log.join("\n"));
  assert.ok(stdout.endsWith("\n") && stdout.indexOf("\n") === stdout.length - 1, "one line");
  return JSON.parse(stdout);
}

const HOOK_LINES =
  "children_backup_ids=20260116T103000\ncompression=gzip\ndeduplicated_size=5\nencryption=gpg\nmode=rsync\n" +
  "parent_backup_id=20260114T103000\nsize=6\nbackup_name=n\nsummarize_wal=on\nerror=e";

Deno.test("fields of backups: every one is documented, and shown by some backup", async () => {
  await using temporary = await temporaryStore();
  const { layout, put } = temporary;
  const ids = [1, 2, 3, 4, 5].map((day) => `2026011${day}T103000`);
  const [plain = "", tablespaces = "", snapshots = "", hook = "", failed = ""] = ids;
  await put(layout.backupInfo(plain), PLAIN);
  await put(layout.backupInfo(tablespaces), WITH_TABLESPACES);
  await put(layout.backupInfo(snapshots), AWS_SNAPSHOTS);
  await temporary.addBackup(hook, HOOK_LINES);
  await temporary.addBackup(
    failed,
    `${FAILED_LINES}\nend_time=None\nbegin_wal=None\ntimeline=None`,
  );
  const fields = documented("backup-list and backup-show");
  const document = await json(temporary, list) as Record<string, unknown[]>;
  assert.deepEqual(Object.keys(document), ["backups_list"]);
  const backups = document["backups_list"] ?? [];
  assert.equal(backups.length, ids.length);
  const seen = new Set<string>();
  for (const [index, backup] of backups.entries()) {
    compare(fields, backup, ids[index] === failed);
    for (const [name, value] of Object.entries(backup as object)) {
      if (value !== null) seen.add(name);
    }
    const shown = await json(temporary, show, ids[index] ?? "") as Record<string, unknown>;
    assert.deepEqual(shown, { [index === 2 ? "pg-main" : "cloud"]: backup });
  }
  assert.deepEqual(fields.map(({ name }) => name).filter((name) => !seen.has(name)), []);
});

Deno.test("each command's document is told, or that it prints nothing", async () => {
  const [, silent = ""] = /\nThe other commands \(([^)]*)\)/.exec(DOCUMENT) ?? [];
  const never = [...silent.replace(/and `backup-keep`[^]*/, "").matchAll(/`([a-z-]+)`/g)]
    .map(([, name]) => name);
  const told = [...DOCUMENT.matchAll(/^\| `([a-z-]+)[ `]/gm)].map(([, name]) => name);
  for (const { name, load } of COMMANDS) {
    const { command } = await load();
    const hasFormat = command.options.some(({ flags }) => flags.includes("--format"));
    assert.deepEqual([told.includes(name), never.includes(name)], [hasFormat, !hasFormat], name);
  }
});

Deno.test("who reads which field of a backup is what the replay of callers reads", () => {
  const fields = documented("backup-list and backup-show");
  const readers = { C: CLOUDNATIVE_PG_FIELDS, F: POSTGRES_FLEX_FIELDS } as const;
  for (const [mark, read] of Object.entries(readers)) {
    const marked = fields.filter(({ readBy }) => readBy.includes(mark));
    assert.deepEqual(marked.map(({ name }) => name).sort(), Object.keys(read).sort(), mark);
    for (const { name, type } of marked) {
      assert.equal(Object.entries(read).find(([key]) => key === name)?.[1], type);
    }
  }
});

Deno.test("examples are JSON of the documented type", () => {
  for (
    const heading of [
      "backup-list and backup-show",
      "backup-keep",
      "backup-delete",
      "version",
      "backup-verify",
      "backup-verify: ARCHIVE",
      "backup-verify: PAGES",
      "backup-verify: WAL",
      "wal-verify",
      "wal-verify: TIMELINE",
      "wal-verify: BACKUP",
      "wal-verify: GAP",
      "wal-verify: DUPLICATE",
      "cleanup",
      "restore",
    ]
  ) {
    for (const { name, type, example } of documented(heading)) {
      assert.equal(typeOf(JSON.parse(example.replace(/, …}(\]?)$/, "}$1"))), type, name);
    }
  }
});

Deno.test("keep, delete and version", async () => {
  await using temporary = await temporaryStore();
  await temporary.addBackup("20260110T000000", "begin_wal=000000010000000100000002");
  await temporary.addBackup("20260111T000000", "begin_wal=000000010000000300000001");
  await temporary.addWal("000000010000000000000001", "000000010000000300000000.gz");
  const keepFields = documented("backup-keep");
  const id = "20260110T000000";
  const status = await json(temporary, keep, id, "--status");
  compare(keepFields, status, false);
  assert.deepEqual(status, { backup_id: id, keep: null });
  await runWords(keep, temporary.url, "srv", id, "--target", "standalone");
  assert.deepEqual(await json(temporary, keep, "first", "--status"), {
    backup_id: id,
    keep: "standalone",
  });
  await runWords(keep, temporary.url, "srv", id, "--release");

  const planned = await json(temporary, deleteCommand, "--dry-run", "-r", "REDUNDANCY 1") as {
    deletions: unknown[];
  };
  for (const deletion of planned.deletions) compare(documented("backup-delete"), deletion, false);
  assert.deepEqual(planned, {
    deletions: [{
      backup_id: id,
      snapshots_provider: null,
      objects: [`srv/base/${id}/data.tar`, `srv/base/${id}/backup.info`],
      wal_prefixes: [],
      wals: [
        "srv/wals/0000000100000000/000000010000000000000001",
        "srv/wals/0000000100000003/000000010000000300000000.gz",
      ],
    }],
  });
  assert.deepEqual(await json(temporary, deleteCommand, "--dry-run", "-b", ""), { deletions: [] });
  assert.deepEqual(await json(temporary, deleteCommand, "--dry-run", "-r", "REDUNDANCY 9"), {
    deletions: [],
  });

  await temporary.put("srv/base/20260112T000000/data.tar", "half");
  // No clock is that late: nothing is removed.
  const cleaned = await json(temporary, cleanup, "--dry-run") as Record<string, unknown>;
  assert.deepEqual([cleaned["dry_run"], cleaned["removed"]], [true, []]);
  const left = cleaned["left"];
  assert.ok(Array.isArray(left) && left.length === 1);
  for (const leftover of left) compare(documented("cleanup"), leftover, false);

  for (const words of [["--json"], ["--format", "json"]]) {
    const { stdout } = await runWords(version, ...words);
    compare(documented("version"), JSON.parse(stdout), false);
  }
});

type Fields = Record<string, unknown>;

Deno.test("backup-verify: whole backups and broken ones", async () => {
  await using temporary = await temporaryStore();
  const { layout, put, store } = temporary;
  const [whole, broken] = ["20260110T000000", "20260111T000000"] as const;
  await temporary.addBackup(whole);
  await store.put(layout.archive(whole, "data", 0, "tar"), dataArchive());
  await temporary.addWal("00000001000000000000001A");
  const fine = await json(temporary, verify, whole) as Fields;
  compare(documented("backup-verify"), fine, false);
  assert.deepEqual([fine["ok"], fine["problem_count"], fine["manifest"]], [true, 0, null]);

  await temporary.addBackup(broken, "end_wal=00000001000000000000001B\nend_xlog=0/1B000138");
  const page = "\0".repeat(8) + "x".repeat(8184);
  await store.put(
    layout.archive(broken, "data", 0, "tar"),
    dataArchive(member({ name: "base/5/1", content: page })),
  );
  await put(layout.manifest(broken), "x\n");
  const bad = await jsonWith(1, temporary, verify, broken) as Fields;
  compare(documented("backup-verify"), bad, false);
  for (const archive of bad["archives"] as unknown[]) {
    compare(documented("backup-verify: ARCHIVE"), archive, false);
  }
  compare(documented("backup-verify: PAGES"), bad["pages"], false);
  compare(documented("backup-verify: WAL"), bad["wal"], false);
  assert.equal(bad["problem_count"], 3, JSON.stringify(bad["problems"]));
  const ignored = await jsonWith(1, temporary, verify, broken, "--missing-wal", "ignore");
  assert.equal((ignored as Fields)["wal"], null);
});

Deno.test("wal-verify: an archive that is whole and one with everything that can be wrong", async () => {
  await using temporary = await temporaryStore();
  const { layout, put, store } = temporary;
  const segment = new Uint8Array(16 * 1024 ** 2);
  const add = (name: string) => store.put(layout.wal(name), segment);
  await temporary.addBackup("20260110T000000");
  await add("00000001000000000000001A");
  const fine = await json(temporary, verifyWal) as Fields;
  compare(documented("wal-verify"), fine, false);
  assert.deepEqual(fine["problems"], []);

  await temporary.addBackup("20260111T000000", "end_wal=00000001000000000000001B");
  await add("00000001000000000000001D");
  await store.put(`${layout.wal("00000001000000000000001D")}.gz`, new Uint8Array(9));
  await put(`${layout.wal("000000010000000000000020")}.partial`, "x");
  await put(layout.wals + "00000002.history", "1\t0/1E000000\tno reason\n");
  await add("00000002000000000000001E");
  await put(layout.wal("00000002000000000000001F"), "short");
  const bad = await jsonWith(1, temporary, verifyWal) as Fields;
  compare(documented("wal-verify"), bad, false);
  const lists = (name: string) => bad[name] as { total: number; items: unknown[] };
  for (const [field, heading] of [["timelines", "TIMELINE"], ["backups", "BACKUP"]] as const) {
    const items = bad[field] as unknown[];
    assert.equal(items.length, 2);
    for (const item of items) compare(documented(`wal-verify: ${heading}`), item, false);
  }
  for (const [field, heading] of [["gaps", "GAP"], ["duplicates", "DUPLICATE"]] as const) {
    assert.equal(lists(field).total, 1);
    for (const item of lists(field).items) {
      compare(documented(`wal-verify: ${heading}`), item, false);
    }
  }
  assert.equal(lists("partials").total, 1);
  assert.equal(lists("suspects").total, 1);
});
