/** Sizes of archives and of the parts that they are uploaded in. */
import type { ProviderName, StoreLimits } from "../../providers/object_store.ts";

/** All in bytes. */
export interface ArchiveSizes {
  /** An archive that is larger before a member is ended there; members are never split. */
  readonly maxArchiveSize: number;
  /** Of every part but an archive's last. */
  readonly partSize: number;
}

/** `--max-archive-size` when not given: Barman's 100GB. */
export const DEFAULT_MAX_ARCHIVE_SIZE = 100 * 1024 ** 3;

const TIB = 1024 ** 4;
const MIB = 1024 ** 2;

/**
 * What part sizes are computed from. Barman's own for S3 and Azure, so that its users find parts as they know
 * them; the store's limits elsewhere. What the store allows in fact is looked at besides.
 */
const CONSTANTS: Readonly<Record<ProviderName, { maxParts: number; minPartSize: number }>> = {
  "aws-s3": { maxParts: 10_000, minPartSize: 5 * MIB },
  "azure-blob-storage": { maxParts: 50_000, minPartSize: 64 * 1024 },
  // Barman has one part there, of a temporary file; ours are those of the XML API's multipart uploads.
  "google-cloud-storage": { maxParts: 10_000, minPartSize: 5 * MIB },
  local: { maxParts: 50_000, minPartSize: MIB },
};

/**
 * Barman's rule: twice what is needed for an archive of the maximum size (it may be exceeded by a member),
 * at least the store's and the user's minimum, at most the store's maximum.
 *
 * With the defaults 21474836 bytes on S3 and Google Cloud Storage, 4294966 elsewhere.
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
  const { maxParts, minPartSize } = CONSTANTS[provider];
  const archive = Math.min(maxArchiveSize, TIB, limits.maxObjectSize);
  const wanted = Math.max(
    2 * Math.floor(archive / Math.min(maxParts, limits.maxParts)),
    minPartSize,
    limits.minPartSize,
    minChunkSize ?? 0,
  );
  return { maxArchiveSize: archive, partSize: Math.min(wanted, limits.maxPartSize) };
}
