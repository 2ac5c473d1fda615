/** Sizes of archives and of the parts that they are uploaded in. */
import type { CompressionName } from "../compression/table.ts";
import type { Parts } from "./upload.ts";
import type { ProviderName, StoreLimits } from "../../providers/object_store.ts";

/** All in bytes. */
export interface ArchiveSizes {
  /** An archive that is larger before a member is ended there; members are never split. */
  readonly maxArchiveSize: number;
  /** Of every part but an archive's last. */
  readonly partSize: number;
  /** What the store, the provider and the user allow a part to have at least. */
  readonly minPartSize: number;
  /** Parts that an archive may have. */
  readonly maxParts: number;
}

/** `--max-archive-size` when not given: Barman's 100GB. */
export const DEFAULT_MAX_ARCHIVE_SIZE = 100 * 1024 ** 3;

const TIB = 1024 ** 4;
const MIB = 1024 ** 2;

/**
 * What part sizes are computed from: Barman's numbers of parts, and how much larger than an archive the parts
 * together are, as a last member may exceed it. Barman has twice the size everywhere; with S3's few parts that
 * would be 21 MB each, several of which are in memory at a time.
 */
const CONSTANTS: Readonly<
  Record<ProviderName, { maxParts: number; minPartSize: number; room: number }>
> = {
  "aws-s3": { maxParts: 10_000, minPartSize: 5 * MIB, room: 1.1 },
  "azure-blob-storage": { maxParts: 50_000, minPartSize: 64 * 1024, room: 2 },
  // Barman has one part there, of a temporary file; ours are those of the XML API's multipart uploads.
  "google-cloud-storage": { maxParts: 10_000, minPartSize: 5 * MIB, room: 1.1 },
  local: { maxParts: 50_000, minPartSize: MIB, room: 2 },
};

/**
 * Parts as small as an archive of the maximum size allows, at least the store's and the user's minimum, at most the
 * store's maximum. All parts of an object but the last have the same size, which some stores insist on.
 *
 * With the defaults 11811160 bytes on S3 and Google Cloud Storage, 4294967 elsewhere.
 *
 * @param maxArchiveSize `--max-archive-size`; more than 1 TiB is taken as 1 TiB
 * @param minChunkSize `--min-chunk-size`
 */
export function archiveSizes(
  provider: ProviderName,
  limits: Pick<StoreLimits, "maxParts" | "minPartSize" | "maxPartSize" | "maxObjectSize">,
  maxArchiveSize: number,
  minChunkSize?: number | undefined,
): ArchiveSizes {
  const { room, ...constants } = CONSTANTS[provider];
  const archive = Math.min(maxArchiveSize, TIB, limits.maxObjectSize);
  const maxParts = Math.min(constants.maxParts, limits.maxParts);
  const minPartSize = Math.min(
    Math.max(constants.minPartSize, limits.minPartSize, minChunkSize ?? 0),
    limits.maxPartSize,
  );
  const wanted = Math.max(Math.floor(room * archive / maxParts), minPartSize);
  return {
    maxArchiveSize: archive,
    partSize: Math.min(wanted, limits.maxPartSize),
    minPartSize,
    maxParts,
  };
}

/** `--jobs` when not given. */
const DEFAULT_SLOTS = 2;
/**
 * Where most of the time is the store's: not compressed, uploading six parts takes a sixth less than two, more no less.
 * Other codecs need more memory themselves.
 */
const SLOTS: Partial<Record<CompressionName | "none", number>> = { none: 6, lz4: 4, snappy: 4 };
/** What that may take, in bytes, with the part that is being filled. */
const BUFFERS = 35 * MIB;

/**
 * The parts of a backup: their size by `partSizeFor`, and how many at once.
 * @param jobs `--jobs`
 */
export function partsFor(
  provider: ProviderName,
  options: {
    readonly sizes: ArchiveSizes;
    readonly compression: CompressionName | undefined;
    readonly jobs: number | undefined;
  },
  clusterSize: number | null,
): Parts {
  const partSize = partSizeFor(options.sizes, clusterSize);
  const { jobs, compression = "none" } = options;
  const wanted = provider === "local" ? DEFAULT_SLOTS : SLOTS[compression] ?? DEFAULT_SLOTS;
  const fitting = Math.floor(BUFFERS / partSize) - 1;
  return { partSize, slots: jobs ?? Math.max(DEFAULT_SLOTS, Math.min(wanted, fitting)) };
}

/**
 * Smaller parts where the whole cluster is smaller than an archive may be. Should it turn out larger, archives end
 * before they run out of parts.
 * @param clusterSize bytes that the server's databases have, null when not known
 */
export function partSizeFor(sizes: ArchiveSizes, clusterSize: number | null): number {
  if (clusterSize === null) return sizes.partSize;
  // Databases grow meanwhile, and there are logs and other files besides.
  const expected = 1.25 * clusterSize + 4 * 1024 * MIB;
  const wanted = Math.ceil(1.1 * expected / sizes.maxParts);
  return Math.min(sizes.partSize, Math.max(sizes.minPartSize, wanted));
}
