/**
 * What it costs to list and to delete where an archive has very many WAL files and backups, beside Barman on the same
 * store. No real store holds a million objects here: `listing_s3.ts` tells of them. `BENCH_WALS` (1,000,000) and
 * `BENCH_BACKUPS` (10,000) set the size.
 */
import { join } from "node:path";
import { formatBackupInfo, newBackupInfo } from "../../lib/backup/backup_info.ts";
import { type ListingS3, startListingS3 } from "../servers/listing_s3.ts";
import { type Figures, markdownTable, measure, median } from "./measure.ts";
import type { BenchContext } from "./setup.ts";

const BUCKET = "bench";
/** Segments of 16 MiB in one folder of the archive. */
const PER_FOLDER = 256;
/** Backups, and with them WAL, that a deletion leaves. */
const KEPT = 2;
/** At most, backups of the archive that a deletion goes through, and WAL files and backups where Barman deletes, too, … */
const DELETED_OF = 1000;
const BESIDE_BARMAN = { wals: 200_000, backups: 10 };
/** … which goes through all WAL for each backup: it would take hours otherwise. */
const OURS_ALONE = ["barman-cloud"];

export async function catalogue(context: BenchContext): Promise<string> {
  const wals = sizeOf("BENCH_WALS", 1_000_000);
  const backups = sizeOf("BENCH_BACKUPS", 10_000);
  const rows: (readonly (string | number)[])[] = [];
  const deletion = (wals: number, backups: number, tools?: readonly string[]): Case => ({
    title: `backup-delete with ${wals} WAL files, all but the last ${KEPT} of ${backups} backups`,
    wals,
    backups,
    words: ["backup-delete", "--retention-policy", `REDUNDANCY ${KEPT}`],
    of: wals,
    tools,
  });
  const cases: Case[] = [
    {
      title: `backup-list, ${backups} backups`,
      wals: 0,
      backups,
      words: ["backup-list"],
      of: backups,
    },
    {
      title: `check-wal-archive --timeline 1, ${wals} WAL files`,
      wals,
      backups: 0,
      // On another timeline, so that all files are looked at and none is in the way.
      words: ["check-wal-archive", "--timeline", "2"],
      of: wals,
    },
    deletion(
      Math.min(wals, BESIDE_BARMAN.wals),
      Math.min(backups, BESIDE_BARMAN.backups),
    ),
    deletion(wals, Math.min(backups, DELETED_OF), OURS_ALONE),
  ];
  for (const { title, words, of, tools, ...size } of cases) {
    const [command = "", ...options] = words;
    for (const [name, program] of programsOf(context, command)) {
      if (tools !== undefined && !tools.includes(name)) continue;
      context.tell(`catalogue: ${title}, ${name}`);
      await using store = await startListingS3(BUCKET, objectsOf(size.wals, size.backups));
      const last = ["--endpoint-url", store.endpoint, `s3://${BUCKET}/pg`, "main"];
      const [figures] = await measure([
        { name, command: [...program, ...options, ...last], env: ENV },
      ], { runs: 1, warmups: 0 });
      rows.push(rowOf(title, figures, store, of));
    }
  }
  return markdownTable(
    ["command", "tool", "wall s", "CPU s", "peak MiB", "requests", "µs an object"],
    rows,
  );
}

interface Case {
  readonly title: string;
  readonly wals: number;
  readonly backups: number;
  readonly words: readonly string[];
  /** Objects that the wall time is told for, each. */
  readonly of: number;
  /** All when absent. */
  readonly tools?: readonly string[] | undefined;
}

const ENV = {
  PATH: "/usr/bin:/bin",
  LANG: "C.UTF-8",
  HOME: "/nonexistent",
  AWS_ACCESS_KEY_ID: "any",
  AWS_SECRET_ACCESS_KEY: "any",
  AWS_DEFAULT_REGION: "us-east-1",
  AWS_EC2_METADATA_DISABLED: "true",
};

function programsOf({ executable, peers }: BenchContext, command: string): [string, string[]][] {
  const ours: [string, string[]] = ["barman-cloud", [executable, command]];
  if (peers.barman === null) return [ours];
  return [ours, ["Barman", [join(peers.barman, `barman-cloud-${command}`)]]];
}

function rowOf(title: string, figures: Figures | undefined, store: ListingS3, of: number) {
  const wall = median(figures?.wallMs ?? []);
  return [
    title,
    figures?.name ?? "",
    (wall / 1000).toFixed(1),
    (median(figures?.cpuMs ?? []) / 1000).toFixed(1),
    median(figures?.peakMiB ?? []).toFixed(0),
    store.takeRequests(),
    (1000 * wall / of).toFixed(1),
  ];
}

function sizeOf(name: string, usual: number): number {
  const size = Number(Deno.env.get(name) ?? usual);
  if (!Number.isInteger(size) || size <= KEPT) {
    throw new RangeError(`${name} is to be a number above ${KEPT}, not ${size}`);
  }
  return size;
}

/** WAL files, with backups spread evenly among them. In the order of keys. */
function objectsOf(wals: number, backups: number): Map<string, string> {
  const objects = new Map<string, string>();
  for (let i = 0; i < backups; i++) {
    const first = Math.floor(Math.max(wals, 1) * i / backups);
    const name = segment(first);
    const time = new Date(Date.UTC(2020, 0, 1) + i * 3_600_000);
    const id = time.toISOString().replace(/[-:]/g, "").slice(0, 15);
    const info = newBackupInfo({
      status: "DONE",
      serverName: "cloud",
      beginWal: name,
      endWal: name,
      timeline: 1,
    });
    objects.set(`pg/main/base/${id}/backup.info`, formatBackupInfo(info));
    objects.set(`pg/main/base/${id}/data.tar`, "");
  }
  for (let i = 0; i < wals; i++) {
    const name = segment(i);
    objects.set(`pg/main/wals/${name.slice(0, 16)}/${name}.gz`, "");
  }
  return objects;
}

function segment(number: number): string {
  return `00000001${hex(Math.floor(number / PER_FOLDER))}${hex(number % PER_FOLDER)}`;
}

function hex(number: number): string {
  return number.toString(16).toUpperCase().padStart(8, "0");
}
