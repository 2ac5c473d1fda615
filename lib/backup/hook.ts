/** `barman-cloud-backup` as a hook script of a Barman server: it stores a backup that Barman has taken. */
import { readFile } from "node:fs/promises";
import type { ObjectStore, Tags } from "../../providers/object_store.ts";
import type { CompressionName } from "../compression/table.ts";
import type { ServerLayout } from "../layout.ts";
import type { ProgressListener } from "../progress.ts";
import { archiveExtension } from "./archive_writer.ts";
import { type BackupInfo, parseBackupInfo } from "./backup_info.ts";
import type { BackupChecks } from "./backup.ts";
import type { WalRange } from "./backup_manifest.ts";
import { copyCluster } from "./copy.ts";
import { createCollector } from "./garbage.ts";
import type { OpenMember } from "./members.ts";
import { type ArchiveSizes, partsFor } from "./part_sizes.ts";
import { createRecorder, type Recorder } from "./recorder.ts";
import { parseLsn } from "../postgres/lsn.ts";
import { markRunning } from "./running_mark.ts";
import { createPartUploader } from "./upload.ts";

/** What Barman tells its hook scripts. */
export interface HookBackup {
  readonly id: string;
  /** Holds `data` and a directory for each tablespace. */
  readonly directory: string;
  /** The metadata file. */
  readonly infoPath: string;
}

/** The environment of the hook is not one that a backup can be stored in. */
export class HookError extends Error {
  override readonly name = "HookError";
  /** Barman must not try again. */
  readonly unrecoverable: boolean;
  constructor(message: string, unrecoverable = false) {
    super(message);
    this.unrecoverable = unrecoverable;
  }
}

/**
 * The backup that the environment of a hook script tells of; undefined when we are no hook script.
 * @param named was a name for the backup given?
 * @throws {HookError}
 */
export function hookBackupOf(
  env: Readonly<Record<string, string | undefined>>,
  named: boolean,
): HookBackup | undefined {
  const { BARMAN_HOOK: hook, BARMAN_PHASE: phase } = env;
  if (!hook || !phase) return undefined;
  if (phase !== "post" || (hook !== "backup_script" && hook !== "backup_retry_script")) {
    throw new HookError(
      `Cannot store a backup as ${phase}-${hook}: use it as post_backup_script or post_backup_retry_script`,
    );
  }
  if (named) {
    throw new HookError("Cannot give a backup a name in a hook script: Barman has named it (-n)");
  }
  const needed = (variable: string): string => {
    const value = env[variable];
    if (!value) throw new HookError(`Cannot store the backup: ${variable} is not set`);
    return value;
  };
  const directory = needed("BARMAN_BACKUP_DIR");
  const id = needed("BARMAN_BACKUP_ID");
  if (env["BARMAN_STATUS"] !== "DONE") {
    throw new HookError(
      `Cannot store backup ${id}: its status is ${env["BARMAN_STATUS"] ?? "not known"}, not DONE`,
      true,
    );
  }
  return { id, directory, infoPath: needed("BARMAN_BACKUP_INFO_PATH") };
}

export interface HookOptions {
  readonly store: ObjectStore;
  readonly layout: ServerLayout;
  readonly tags: Tags | undefined;
  readonly compression: CompressionName | undefined;
  readonly level: number | undefined;
  /** Parts uploaded at the same time; undefined for as many as suit. */
  readonly jobs: number | undefined;
  /** WAL is Barman's matter here. */
  readonly checks: Pick<BackupChecks, "pages" | "manifest">;
  readonly sizes: ArchiveSizes;
  readonly signal: AbortSignal;
  readonly onProgress: ProgressListener;
  readonly onNotice: (message: string) => void;
  readonly onWarning: (message: string) => void;
}

/**
 * Store the archives of a backup and then its metadata file, unchanged. After a failure there is no metadata file,
 * and no part of an archive that is not complete.
 */
export async function storeHookBackup(backup: HookBackup, options: HookOptions): Promise<void> {
  const { store, layout, tags, compression, level, sizes, onNotice, onProgress } = options;
  const metadata = await readFile(backup.infoPath);
  const info = parseBackupInfo(metadata.toString("utf8"));
  const collector = createCollector();
  const uploader = createPartUploader({
    store,
    tags,
    ...partsFor(store.provider, options, null),
    signal: options.signal,
    onNotice,
    onPart: collector.sent,
  });
  const recorder = createRecorder({
    store,
    layout,
    id: backup.id,
    tags,
    signal: uploader.signal,
    manifest: options.checks.manifest,
    verifyPages: options.checks.pages !== "off",
    onWarning: options.onWarning,
  });
  const range = rangeOf(info);
  const extension = archiveExtension(compression);
  const mark = await markRunning(store, layout, backup.id, { ...options, exclusive: false });
  if (info.beginWal !== null) mark.beginsAt(info.beginWal);
  try {
    const inspection = range === null ? undefined : await recorder.begin({
      version: versionOf(info, backup),
      systemIdentifier: info.systemid,
      dataChecksums: info.dataChecksums,
      blockSize: null,
      segmentBlocks: null,
      startLsn: range.start,
    });
    await copyCluster(
      {
        dataDirectory: `${backup.directory}/data`,
        tablespaces: (info.tablespaces ?? []).map(({ oid }) => ({
          oid,
          directory: `${backup.directory}/${oid}`,
        })),
        majorVersion: majorVersionOf(versionOf(info, backup)),
        keepLabel: true,
      },
      nothing,
      {
        compression,
        level,
        maxArchiveSize: sizes.maxArchiveSize,
        keyOf: (name, index) => layout.archive(backup.id, name, index, extension),
        uploader,
        inspection,
        totalBytes: info.size,
        onProgress,
        onFile: collector.file,
        onNotice,
      },
    );
    await uploader.finish();
    if (range !== null) {
      await recorder.finishManifest(range);
      await recorder.finish(uploader.stored(), null);
      refuseDamage(recorder, options);
    }
    await store.put(layout.backupInfo(backup.id), metadata, { tags, signal: uploader.signal });
  } catch (error) {
    await Promise.all([uploader.abort(), recorder.abort()]);
    throw error;
  } finally {
    await mark.end();
  }
}

/** Null for metadata that lack it: nothing is recorded then. */
function rangeOf({ timeline, beginXlog, endXlog }: BackupInfo): WalRange | null {
  if (timeline === null || beginXlog === null || endXlog === null) return null;
  return { timeline, start: parseLsn(beginXlog), end: parseLsn(endXlog) };
}

function refuseDamage({ pages }: Recorder, { checks, onWarning }: HookOptions): void {
  if (pages.failures === 0) return;
  const message = `${pages.failures} of ${pages.pages} pages are damaged`;
  if (checks.pages === "fail") throw new Error(message);
  onWarning(message);
}

/** What tablespaces' version directories are named by: 150004 → `15`, 90624 → `9.6`. */
export function majorVersionOf(version: number): string {
  const major = Math.floor(version / 10_000);
  return major >= 10 ? String(major) : `${major}.${Math.floor(version / 100) % 100}`;
}

function versionOf(info: BackupInfo, backup: HookBackup): number {
  if (info.version === null) {
    throw new Error(
      `Cannot store backup ${backup.id}: ${backup.infoPath} does not tell its version`,
    );
  }
  return info.version;
}

async function* nothing(): AsyncGenerator<OpenMember> {}
