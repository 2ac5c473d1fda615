/** What deleting backups means for the store, as a plain value: shown by a dry run, carried out otherwise. */
import type { StoredObject } from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import { allArchives, backupArchives } from "./archives.ts";
import type { CatalogueEntry } from "./catalogue.ts";
import { keepStatus } from "./retention.ts";
import type { SnapshotsInfo } from "./snapshots_info.ts";
import { type WalDecision, walRule } from "./wal_cleanup.ts";

export interface BackupDeletion {
  readonly id: string;
  /** Disk snapshots to delete first; null for a backup in the object store. */
  readonly snapshots: SnapshotsInfo | null;
  /** Key of the label that snapshot backups have as an object of its own. */
  readonly label: string | null;
  /** Keys, in Barman's order; then what is ours beside them: the manifest and the record of checks. */
  readonly archives: readonly string[];
  /** Key; goes last, so that a deletion that failed can be repeated. */
  readonly info: string;
  readonly wal: WalDecision;
  /** Ids of the other backups that the minimum redundancy counts, those that are deleted before excepted. */
  readonly counted: readonly string[];
  /** Ids of all backups that the decision about WAL knows of. */
  readonly catalogue: ReadonlySet<string>;
  /** What is odd about the backup's objects, one line each. */
  readonly warnings: readonly string[];
}

export interface DeletionPlanInput {
  /** The catalogue, in ascending order of ids. */
  readonly backups: readonly CatalogueEntry[];
  /** Keep annotations: backup id to value. */
  readonly keeps: ReadonlyMap<string, string>;
  /** Which to delete. */
  readonly ids: ReadonlySet<string>;
  /** Listings of `base/ID/` of those. */
  readonly objects: ReadonlyMap<string, readonly StoredObject[]>;
  readonly layout: ServerLayout;
  /** See `walRule`. */
  readonly stopAtStandalone: boolean;
  /** Does the minimum redundancy count only backups that are DONE? A policy's does. */
  readonly countsDoneOnly: boolean;
}

/**
 * In ascending order of ids; what happens to WAL takes for granted that the deletions before have happened.
 * @throws {RangeError} for a backup that is kept: callers must have refused before
 */
export function deletionPlan(input: DeletionPlanInput): BackupDeletion[] {
  const { keeps, ids, objects, layout, stopAtStandalone } = input;
  const deletions: BackupDeletion[] = [];
  const catalogue = new Set(input.backups.map(({ id }) => id));
  let remaining = input.backups;
  for (const backup of input.backups) {
    const { id, info } = backup;
    if (!ids.has(id)) continue;
    if (keepStatus(keeps, id) !== null) throw new RangeError(`Backup ${id} is kept`);
    const ours = new Set([layout.manifest(id), layout.record(id)]);
    const archives = backupArchives(layout.backup(id), objects.get(id) ?? [], info);
    deletions.push({
      id,
      snapshots: info.snapshotsInfo,
      label: info.snapshotsInfo === null ? null : layout.backupLabel(id),
      archives: [
        ...allArchives(archives).map(({ object }) => object.key),
        ...(objects.get(id) ?? []).map(({ key }) => key).filter((key) => ours.has(key)),
      ],
      info: layout.backupInfo(id),
      wal: walRule(remaining, backup, keeps, stopAtStandalone),
      counted: remaining.filter((other) =>
        other !== backup && (!input.countsDoneOnly || other.info.status === "DONE")
      ).map(({ id }) => id),
      catalogue,
      warnings: info.snapshotsInfo === null ? oddities(id, archives) : [],
    });
    remaining = remaining.filter((other) => other !== backup);
  }
  return deletions;
}

function oddities(
  id: string,
  { sets, unknown }: ReturnType<typeof backupArchives>,
): string[] {
  return [
    ...sets.filter(({ main }) => main === null).map(({ name }) =>
      `Backup ${id} has no archive ${name}.tar (nor a compressed one)`
    ),
    ...unknown.map((key) => `${key} is left: its extension is none of an archive's`),
  ];
}
