/** A base backup of a running server into the store, from the first question to `backup.info`. */
import { stat } from "node:fs/promises";
import type { CompressionName } from "../compression/table.ts";
import { archiveExtension } from "./archive_writer.ts";
import { BackupError, reasonOf } from "./backup_error.ts";
import { beginBackup, type CommonBackupOptions, failed } from "./begin.ts";
import type { ManifestChecksum, WalRange } from "./backup_manifest.ts";
import { type BackupInfo, type Tablespace } from "./backup_info.ts";
import { type CopiedData, copyCluster, systemIdentifierOf } from "./copy.ts";
import { type Collector, createCollector } from "./garbage.ts";
import { externalFiles, includedOutside } from "./external_files.ts";
import { majorVersionOf } from "./hook.ts";
import { type OpenMember, textMember } from "./members.ts";
import { type ArchiveSizes, partsFor } from "./part_sizes.ts";
import type { PyDict, PyValue } from "./python_literal.ts";
import { createRecorder, type Recorder } from "./recorder.ts";
import {
  afterStop,
  learnFacts,
  lsnText,
  requireVersion,
  seconds,
  started,
  stopped,
} from "./steps.ts";
import type { Timestamp } from "./timestamp.ts";
import {
  awaitWalOfBackup,
  judgeMissingWal,
  type NeededWal,
  neededWal,
  type WalChecks,
} from "./wal_of_backup.ts";
import { createPartUploader, type PartUploader, type UploadedObject } from "./upload.ts";

/** What a backup needs of the server. All on one session: a backup ends with the session that began it. */
export interface BackupServer {
  /** `server_version_num`: 170002. */
  readonly version: number;
  readonly inRecovery: boolean;
  /** Whether no other session of the server holds a claim on the same text; held until the session ends. */
  claim(text: string): Promise<boolean>;
  /** As text; null when it can't be told. */
  systemIdentifier(): Promise<string | null>;
  /** What of the privileges for a whole backup is missing, in words; empty when nothing is. */
  missingPrivileges(): Promise<readonly string[]>;
  /** What can't be told is null. */
  facts(): Promise<ServerFacts>;
  /** Waits for a checkpoint. Keeps the session alive until `stop`. */
  start(label: string, fast: boolean, signal: AbortSignal): Promise<BackupStart>;
  /** Waits until the last WAL is archived, for as long as it takes or `archiveTimeout` seconds. */
  stop(options: StopOptions): Promise<BackupStop>;
  /** Not in recovery only. */
  switchWal(): Promise<void>;
  createRestorePoint(name: string): Promise<void>;
}

export interface ServerFacts {
  readonly dataDirectory: string | null;
  /** Of WAL, in bytes. */
  readonly segmentSize: number;
  readonly configFile: string | null;
  readonly hbaFile: string | null;
  readonly identFile: string | null;
  readonly includedFiles: readonly string[] | null;
  /** Those that have a location. */
  readonly tablespaces: readonly Tablespace[];
  readonly dataChecksums: string | null;
  /** Of data pages, in bytes. */
  readonly blockSize: number | null;
  /** Data pages of one file of a relation. */
  readonly segmentBlocks: number | null;
  /** `off`, `on` or `always` */
  readonly archiveMode: string | null;
  readonly summarizeWal: string | null;
  /** Bytes. */
  readonly clusterSize: number | null;
}

export interface BackupStart {
  readonly lsn: bigint;
  readonly timeline: number;
  readonly time: Timestamp;
}

export interface BackupStop extends BackupStart {
  /** Text of backup_label. */
  readonly label: string;
}

export interface StopOptions {
  readonly signal: AbortSignal;
  /** Seconds; undefined for no limit. */
  readonly archiveTimeout: number | undefined;
}

/** What a backup proves of itself before it says DONE. */
export interface BackupChecks extends WalChecks {
  /** What becomes of a backup in which pages are damaged: `fail` makes it FAILED, after all of it was stored. */
  readonly pages: "off" | "warn" | "fail";
  /** How the manifest sums up files; null for no manifest. */
  readonly manifest: ManifestChecksum | null;
}

export interface BackupOptions extends CommonBackupOptions {
  readonly compression: CompressionName | undefined;
  readonly level: number | undefined;
  /** Parts uploaded at the same time; undefined for as many as suit. */
  readonly jobs: number | undefined;
  readonly sizes: ArchiveSizes;
  readonly checks: BackupChecks;
}

/**
 * Take a backup. From the moment there is an id, every failure (the signal too) leaves a `backup.info` with
 * status FAILED and no parts of archives that are not complete. The server forgets a backup that was begun and
 * not ended when the caller closes the session.
 * @returns the id
 * @throws {BackupError}
 * @throws {StoreError} before the backup has an id
 */
export async function takeBackup(server: BackupServer, options: BackupOptions): Promise<string> {
  const { store, layout, signal, tags } = options;
  requireVersion(server);
  const backup = await beginBackup(server, "cloud", options);
  const { id, learn } = backup;
  const created = performance.now();
  const collector = createCollector();
  const uploader = createPartUploader({
    store,
    tags,
    ...partsFor(store.provider, options, null),
    signal,
    onNotice: options.onWarning,
    onPart: collector.sent,
  });
  const recorder = createRecorder({
    store,
    layout,
    id,
    tags,
    signal: uploader.signal,
    manifest: options.checks.manifest,
    verifyPages: options.checks.pages !== "off",
    onWarning: options.onWarning,
  });
  let action: Parameters<typeof failed>[0] = "uploading data";
  try {
    const { range, wal } = await storeCluster(id, server, options, {
      uploader,
      recorder,
      collector,
    }, learn);
    await uploader.finish();
    action = "verifying data";
    await recorder.finishManifest(range);
    await prove(id, wal, uploader.stored(), recorder, options);
    learn({ copyStats: copyStats(uploader, created), status: "DONE" });
    action = "uploading backup.info file";
    await backup.storeInfo(signal);
    return id;
  } catch (error) {
    const reason = reasonOf(error);
    learn(failed(action, reason, options));
    await Promise.all([uploader.abort(), recorder.abort(), backup.storeLastWords()]);
    throw new BackupError("failed", `Backup ${id} failed: ${reason}`, { cause: error });
  } finally {
    await backup.end();
  }
}

/**
 * The WAL that the backup needs is looked for in the archive, and what was found out is stored.
 * @throws {BackupError} when it is not to say DONE
 */
async function prove(
  id: string,
  wal: NeededWal,
  archives: readonly UploadedObject[],
  recorder: Recorder,
  options: BackupOptions,
): Promise<void> {
  const { layout, checks, onWarning } = options;
  const looked = await awaitWalOfBackup(wal, options);
  await recorder.finish(archives, looked);
  const { pages, failures } = recorder.pages;
  if (failures > 0) {
    const message = `${failures} of ${pages} pages are damaged: see ${layout.record(id)}`;
    if (checks.pages === "fail") throw new BackupError("failed", message);
    onWarning(message);
  }
  judgeMissingWal(looked, wal, options);
}

interface StoringTools {
  readonly uploader: PartUploader;
  readonly recorder: Recorder;
  readonly collector: Collector;
}

/** Everything between the id and the last archive. */
async function storeCluster(
  id: string,
  server: BackupServer,
  options: BackupOptions,
  { uploader, recorder, collector }: StoringTools,
  learn: (known: Partial<BackupInfo>) => void,
): Promise<{ readonly range: WalRange; readonly wal: NeededWal }> {
  const { layout, onProgress, onNotice, onWarning } = options;
  const { signal } = uploader;
  signal.throwIfAborted();
  const { systemid, facts, tablespaces } = await learnFacts(server, signal, learn);
  const inPlace = facts.tablespaces.filter((tablespace) => !tablespaces.includes(tablespace));
  for (const { name } of inPlace) onNotice(`Tablespace ${name} lies in the data directory itself`);
  uploader.setParts(partsFor(options.store.provider, options, facts.clusterSize));
  const dataDirectory = await checkedDataDirectory(facts.dataDirectory, systemid);

  onProgress({
    activity: "waiting for the checkpoint",
    doneBytes: 0,
    totalBytes: facts.clusterSize,
  });
  const label = `Barman backup cloud ${id}`;
  const start = await server.start(label, options.immediateCheckpoint, signal);
  learn(started(start, facts.segmentSize));
  onNotice(`Backup ${id} started at ${lsnText(start.lsn)} on timeline ${start.timeline}`);

  const inspection = await recorder.begin({
    ...facts,
    version: server.version,
    systemIdentifier: systemid,
    startLsn: start.lsn,
  });

  let doneBytes = 0;
  let end: BackupStart = start;
  const last = async function* (data: CopiedData): AsyncGenerator<OpenMember> {
    yield* externalFiles(facts, data.dataDirectories, data.owners);
    for (const path of await includedOutside(facts, data.dataDirectories)) {
      onWarning(
        `Not stored: ${path}, which the configuration includes from outside the data directory`,
      );
    }
    onProgress({
      activity: "waiting for the last WAL to be archived",
      doneBytes,
      totalBytes: facts.clusterSize,
    });
    const stop = await server.stop({ signal, archiveTimeout: options.archiveTimeout });
    end = stop;
    learn(stopped(stop, facts.segmentSize));
    onNotice(`Backup ${id} stopped at ${lsnText(stop.lsn)} on timeline ${stop.timeline}`);
    await afterStop(server, id, signal, onWarning);
    yield textMember("backup_label", stop.label, 0o644, data.owner, data.owners);
  };
  const extension = archiveExtension(options.compression);
  await copyCluster(
    {
      dataDirectory,
      tablespaces: tablespaces.map(({ oid, location }) => ({ oid, directory: location })),
      majorVersion: majorVersionOf(server.version),
      keepLabel: false,
    },
    last,
    {
      compression: options.compression,
      level: options.level,
      maxArchiveSize: options.sizes.maxArchiveSize,
      keyOf: (name, index) => layout.archive(id, name, index, extension),
      uploader,
      inspection,
      totalBytes: facts.clusterSize,
      onProgress: (progress) => {
        doneBytes = progress.doneBytes;
        onProgress(progress);
      },
      onFile: collector.file,
      onNotice,
    },
  );
  return {
    range: { timeline: start.timeline, start: start.lsn, end: end.lsn },
    wal: neededWal(server, facts, start, end),
  };
}

/** @throws {BackupError} when there is none here, or it is that of another server */
async function checkedDataDirectory(path: string | null, systemid: string | null): Promise<string> {
  if (path === null) {
    throw new BackupError("failed", "The server does not tell its data directory");
  }
  const found = await stat(path).catch((error: unknown) => {
    throw new BackupError(
      "failed",
      `Cannot read the data directory ${path}; the backup must run where the server runs: ` +
        reasonOf(error),
      { cause: error },
    );
  });
  if (!found.isDirectory()) throw new BackupError("failed", `${path} is not a directory`);
  const here = await systemIdentifierOf(path);
  if (here !== undefined && systemid !== null && here !== systemid) {
    throw new BackupError(
      "failed",
      `${path} belongs to another server (system identifier ${here}, not ${systemid}); ` +
        "the backup must run where the server runs",
    );
  }
  return path;
}

/** Barman's statistics; no reader depends on them. */
function copyStats(uploader: PartUploader, created: number): PyDict {
  const items = [...uploader.times()];
  const perItem = (value: (times: (typeof items)[number][1]) => PyValue): PyDict =>
    new Map(items.map(([item, times]) => [item, value(times)]));
  const elapsed = items.length === 0 ? 0 : Math.max(...items.map(([, { end }]) => end)) -
    Math.min(...items.map(([, { start }]) => start));
  const serialized = items.reduce((sum, [, times]) => sum + times.serialized, 0);
  return new Map<PyValue, PyValue>([
    ["total_time", seconds((performance.now() - created) / 1000)],
    ["number_of_workers", uploader.slots],
    ["analysis_time", 0],
    ["analysis_time_per_item", perItem(() => 0)],
    ["copy_time_per_item", perItem((times) => seconds(times.elapsed))],
    ["serialized_copy_time_per_item", perItem((times) => seconds(times.serialized))],
    ["copy_time", seconds(elapsed)],
    ["serialized_copy_time", seconds(serialized)],
  ]);
}
