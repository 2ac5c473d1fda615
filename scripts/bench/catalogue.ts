/**
 * What it costs to list and to delete where an archive has very many WAL files and backups: time and memory of the
 * executable, and the requests behind it. `BENCH_WALS` (100,000) and `BENCH_BACKUPS` (100) set the size; a million
 * and a thousand are what the project promises to cope with.
 */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { executeDeletion, planDeletion } from "../../lib/backup/delete.ts";
import { formatBackupInfo, newBackupInfo } from "../../lib/backup/backup_info.ts";
import { parseRetentionPolicy } from "../../lib/backup/retention.ts";
import { serverLayout } from "../../lib/layout.ts";
import { mapInParallel } from "../../lib/parallel.ts";
import { withCounting } from "../../providers/counting.ts";
import { openFileStore } from "../../providers/file/store.ts";
import type { ListOptions, ObjectStore } from "../../providers/object_store.ts";
import { measure, table } from "./measure.ts";
import type { BenchContext } from "./setup.ts";

/** Segments of 16 MiB in one folder of the archive. */
const PER_FOLDER = 256;
/** Keys in a page of S3's listings. */
const PAGE = 1000;
/** Backups that the policy leaves. */
const KEPT = 10;

export async function catalogue({ executable }: BenchContext): Promise<string> {
  const wals = sizeOf("BENCH_WALS", 100_000);
  const backups = sizeOf("BENCH_BACKUPS", 100);
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-bench-"));
  try {
    const url = pathToFileURL(directory).href;
    await makeArchive(directory, wals, backups);
    const policy = ["--retention-policy", `REDUNDANCY ${KEPT}`];
    const command = (...words: string[]) => [executable, ...words, url, "main"];
    const title = `${wals} WAL files, ${backups} backups, in a directory`;
    const reading = await measure([
      { name: "backup-list --format json", command: command("backup-list", "--format", "json") },
      {
        name: "backup-delete --dry-run",
        command: command("backup-delete", "--dry-run", ...policy),
      },
    ], { runs: 3 });
    // Once each, as what is gone can't be deleted again.
    const [deleting] = await measure([
      { name: "backup-delete", command: command("backup-delete", ...policy) },
    ], { runs: 1, warmups: 0 });
    await rm(join(directory, "main"), { recursive: true, force: true });
    await makeArchive(directory, wals, backups);
    const requests = await countRequests(url);
    return [
      `${title}\n\n` + table(deleting === undefined ? reading : [...reading, deleting]),
      requests,
    ].join("\n");
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function sizeOf(name: string, usual: number): number {
  const size = Number(Deno.env.get(name) ?? usual);
  if (!Number.isInteger(size) || size < KEPT) {
    throw new RangeError(`${name} is to be a number from ${KEPT} on, not ${size}`);
  }
  return size;
}

/** Empty WAL files, with backups spread evenly among them. */
async function makeArchive(directory: string, wals: number, backups: number): Promise<void> {
  const folders = Math.ceil(wals / PER_FOLDER);
  const archive = join(directory, "main", "wals");
  await mapInParallel(Array.from({ length: folders }, (_, i) => i), 16, async (folder) => {
    const path = join(archive, `00000001${hex(folder)}`);
    await mkdir(path, { recursive: true });
    const count = Math.min(PER_FOLDER, wals - folder * PER_FOLDER);
    for (let i = 0; i < count; i++) await writeFile(join(path, `${segment(folder, i)}.gz`), "");
  });
  for (let i = 0; i < backups; i++) {
    const first = Math.floor(wals * i / backups);
    const name = segment(Math.floor(first / PER_FOLDER), first % PER_FOLDER);
    const time = new Date(Date.UTC(2020, 0, 1) + i * 3_600_000);
    const id = time.toISOString().replace(/[-:]/g, "").slice(0, 15);
    const path = join(directory, "main", "base", id);
    await mkdir(path, { recursive: true });
    const info = newBackupInfo({
      status: "DONE",
      serverName: "cloud",
      beginWal: name,
      endWal: name,
      timeline: 1,
    });
    await writeFile(join(path, "backup.info"), formatBackupInfo(info));
    await writeFile(join(path, "data.tar"), "");
  }
}

/** The same deletion in this process, told by the calls to the store. */
async function countRequests(url: string): Promise<string> {
  const { store: files } = await openFileStore(url, { env: {} });
  let listed = 0;
  let pages = 0;
  const listing: ObjectStore = {
    ...files,
    async *list(prefix: string, options?: ListOptions) {
      let entries = 0;
      try {
        for await (const entry of files.list(prefix, options)) {
          entries++;
          yield entry;
        }
      } finally {
        listed += entries;
        pages += Math.max(1, Math.ceil(entries / PAGE));
      }
    },
  };
  let deleted = 0;
  let batches = 0;
  const deleting: ObjectStore = {
    ...listing,
    deleteMany(keys, options) {
      deleted += keys.length;
      batches += Math.ceil(keys.length / (options?.batchSize ?? files.limits.maxDeleteBatch));
      return files.deleteMany(keys, options);
    },
  };
  const { store, counts } = withCounting(deleting);
  const context = {
    store,
    layout: serverLayout("", "main"),
    log: silentLogger,
    signal: new AbortController().signal,
  };
  const before = performance.now();
  const plan = await planDeletion(
    context,
    { kind: "policy", policy: parseRetentionPolicy(`REDUNDANCY ${KEPT}`) },
    { minimumRedundancy: 0, now: new Date() },
  );
  await executeDeletion(context, plan, {
    batchSize: null,
    checkObjectLock: false,
    deleteSnapshots: () => Promise.reject(new Error("there are no snapshots here")),
  });
  const seconds = ((performance.now() - before) / 1000).toFixed(1);
  await store.close();
  const { calls } = counts();
  return [
    `${plan.length} backups and their WAL deleted, counted (${seconds} s in this process):`,
    "",
    "| | calls | entries or keys | requests to S3 |",
    "| --- | --- | --- | --- |",
    `| list | ${calls.list ?? 0} | ${listed} | ${pages} (pages of ${PAGE}) |`,
    `| get | ${calls.get ?? 0} | | ${calls.get ?? 0} |`,
    `| deleteMany | ${calls.deleteMany ?? 0} | ${deleted} | ${batches} |`,
    "",
  ].join("\n");
}

const silentLogger = {
  debug() {},
  info() {},
  warning(message: string) {
    console.error(message);
  },
  error(message: string) {
    console.error(message);
  },
  critical(message: string) {
    console.error(message);
  },
  shows: () => false,
};

function segment(log: number, number: number): string {
  return `00000001${hex(log)}${hex(number)}`;
}

function hex(number: number): string {
  return number.toString(16).toUpperCase().padStart(8, "0");
}
