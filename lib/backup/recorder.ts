/**
 * What a backup says of itself beside Barman's backup.info: the manifest of its files, and a small record of what was
 * checked. Both are objects that Barman does not look at.
 */
import type { ObjectStore, Tags } from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import {
  type PageRules,
  USUAL_BLOCK_SIZE,
  USUAL_SEGMENT_BYTES,
} from "../postgres/page_checksum.ts";
import type { MissingWal } from "../wal/presence.ts";
import {
  type ManifestChecksum,
  type ManifestFile,
  ManifestText,
  type WalRange,
} from "./backup_manifest.ts";
import type { InspectionOptions } from "./inspection.ts";
import { PageFailures, type PageReport } from "./page_failures.ts";
import { PiecewiseObject } from "./piecewise_object.ts";
import { formatRecord } from "./record.ts";
import type { UploadedObject } from "./upload.ts";

export interface RecorderOptions {
  readonly store: ObjectStore;
  readonly layout: ServerLayout;
  readonly id: string;
  readonly tags: Tags | undefined;
  readonly signal: AbortSignal;
  /** How files are summed up; null for no manifest. */
  readonly manifest: ManifestChecksum | null;
  readonly verifyPages: boolean;
  readonly onWarning: (message: string) => void;
}

/** What is known when the copy begins. */
export interface RecordedCluster {
  /** 170002 */
  readonly version: number;
  readonly systemIdentifier: string | null;
  /** `on`, `off`, or null when not known. */
  readonly dataChecksums: string | null;
  readonly blockSize: number | null;
  /** Blocks of one file of a relation. */
  readonly segmentBlocks: number | null;
  /** Where the WAL begins that the backup needs. */
  readonly startLsn: bigint;
}

export interface Recorder {
  /** Before the first file. */
  begin(cluster: RecordedCluster): Promise<InspectionOptions>;
  /** After the last file: the manifest is stored. */
  finishManifest(range: WalRange): Promise<void>;
  /** Store the record: last of all but backup.info. `wal` is null when nobody looked for it. */
  finish(
    archives: readonly UploadedObject[],
    wal: { readonly missing: MissingWal | null } | null,
  ): Promise<void>;
  readonly pages: PageReport;
  /** Remove what is not complete. Never rejects. */
  abort(): Promise<void>;
}

/** Milliseconds that removing a part of a manifest may take. */
const CLEAN_UP_MS = 10_000;
const SYSTEM_IDENTIFIERS_FROM = 170_000;

export function createRecorder(options: RecorderOptions): Recorder {
  const { store, layout, id, tags, signal, onWarning } = options;
  const pages = new PageFailures(onWarning);
  const text = new ManifestText();
  const target = options.manifest === null
    ? null
    : new PiecewiseObject(store, layout.manifest(id), { tags, signal });
  /** Files at the top by name: configuration files from elsewhere may come after their namesakes there. */
  const top = new Map<string, ManifestFile>();
  let rules: PageRules | null = null;

  const onFile = async (file: ManifestFile) => {
    // That of another tool, which ours takes the place of.
    if (file.path === "backup_manifest") return;
    if (!file.path.includes("/")) top.set(file.path, file);
    else await target?.write(text.file(file));
  };
  return {
    pages,
    async begin(cluster) {
      const withCluster = cluster.version >= SYSTEM_IDENTIFIERS_FROM &&
        cluster.systemIdentifier !== null;
      await target?.write(text.begin(withCluster ? 2 : 1, cluster.systemIdentifier));
      if (options.verifyPages && cluster.dataChecksums === "on") rules = rulesFor(cluster);
      const known = rules;
      return {
        checksum: options.manifest ?? "none",
        onFile: target === null ? null : onFile,
        pages: known === null ? null : () => known,
        failures: pages,
      };
    },
    async finishManifest(range) {
      if (target === null) return;
      for (const file of top.values()) await target.write(text.file(file));
      await target.write(text.end([range]));
      await target.finish();
    },
    async finish(archives, wal) {
      const directory = layout.backup(id);
      const record = formatRecord({
        backupId: id,
        archives: archives.map(({ key, size, crc32 }) => ({
          name: key.slice(directory.length),
          size,
          crc32,
        })),
        pages: rules === null ? null : { ...rules, report: pages },
        missingWal: wal?.missing?.segments ?? (wal === null ? null : 0),
      });
      await store.put(layout.record(id), new TextEncoder().encode(record), { tags, signal });
    },
    async abort() {
      try {
        await target?.abort(AbortSignal.timeout(CLEAN_UP_MS));
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        onWarning(`Cannot remove the unfinished upload of ${layout.manifest(id)}: ${reason}`);
      }
    },
  };
}

function rulesFor({ blockSize, segmentBlocks, startLsn }: RecordedCluster): PageRules {
  const size = blockSize ?? USUAL_BLOCK_SIZE;
  return {
    blockSize: size,
    segmentBlocks: segmentBlocks ?? USUAL_SEGMENT_BYTES / size,
    startLsn,
  };
}
