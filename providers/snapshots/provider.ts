/** Disk snapshots of a cloud, in terms that are the same for all three. */
import type { Cancellable, Tags } from "../object_store.ts";

/** As backup.info names them. */
export type SnapshotCloud = "aws" | "azure" | "gcp";

/** Names and values as Barman records them, in its order: `snapshot_id`, `device_name`, `lun`, … */
export type Identifiers = ReadonlyMap<string, string | number | null>;

/** A virtual machine and what was attached to it when it was looked for. */
export interface Instance {
  /** By what the cloud's API knows it. */
  readonly id: string;
  /** Without the disk that it boots from. */
  readonly disks: readonly AttachedDisk[];
  /**
   * Take snapshots of disks, all started together, and wait until they are complete.
   * @param requests of disks out of `disks`
   * @throws {SnapshotError} the signal's reason
   */
  takeSnapshots(requests: readonly SnapshotRequest[], options: TakeOptions): Promise<void>;
  /**
   * Make disks from snapshots where the instance is, attach them to it, and wait until that is done. When it fails,
   * what was made is detached and deleted again as far as that is possible; the rest is warned about.
   * @returns the disks, in the order of the requests
   * @throws {SnapshotError} the signal's reason
   */
  createDisks(requests: readonly DiskRequest[], options: CreateOptions): Promise<AttachedDisk[]>;
}

export interface AttachedDisk {
  /** Unique for the cloud: `vol-0123`, or the name of the disk. */
  readonly id: string;
  /** A name besides, which need not be unique (AWS: the tag `Name`). */
  readonly name: string | null;
  readonly location: DiskLocation;
  /** Bytes; null when the cloud does not tell. */
  readonly size: number | null;
  /** The snapshot that the disk was made from, by what a backup records; null when there is none. */
  readonly sourceSnapshot: string | null;
  /** What a backup records of the disk besides its snapshot: `device_name`, `lun`, `location`. */
  readonly identifiers: Identifiers;
}

/** Where the host has the disk. */
export type DiskLocation =
  /** Links that the cloud's udev rules make; the first that is there counts. */
  | { readonly kind: "links"; readonly paths: readonly string[] }
  /** EC2's name of the device (`/dev/sdf`), which the kernel follows more or less, and the volume. */
  | { readonly kind: "ec2"; readonly device: string; readonly volumeId: string };

export interface SnapshotRequest {
  readonly disk: AttachedDisk;
  /** Of the snapshot. */
  readonly name: string;
}

export interface TakeOptions {
  readonly tags: Tags | undefined;
  /** Of the whole set: `Barman backup main 20260115T103000`. */
  readonly description: string;
  readonly signal: AbortSignal;
  /**
   * From now on there is, or may be, a snapshot of this disk: called before the promise settles, also when the
   * taking fails. Called again when more is known of it.
   */
  readonly onCreated: (disk: AttachedDisk, identifiers: Identifiers) => void;
  /** Milliseconds that the snapshots may take, and the option that says so. */
  readonly limit: { readonly ms: number; readonly option: string };
  /** How far each snapshot is; called now and then. */
  readonly onProgress: (progress: readonly SnapshotProgress[]) => void;
  readonly onNotice: (message: string) => void;
  readonly onWarning: (message: string) => void;
}

export interface SnapshotProgress {
  readonly name: string;
  /** 0 to 100; null where the cloud does not tell. */
  readonly percent: number | null;
}

/** A disk to make from a snapshot and to attach. */
export interface DiskRequest {
  /** What a backup recorded of it. */
  readonly snapshot: Identifiers;
  /** Of the new disk. */
  readonly name: string;
}

export interface CreateOptions {
  readonly tags: Tags | undefined;
  readonly signal: AbortSignal;
  readonly onNotice: (message: string) => void;
  readonly onWarning: (message: string) => void;
}

export interface SnapshotProvider {
  readonly cloud: SnapshotCloud;
  /** Longest name of a snapshot or disk, in characters. */
  readonly maxNameLength: number;
  /** What is recorded once for all snapshots; complete from the first `onCreated`. */
  info(): Identifiers;
  /** What a snapshot is deleted by and a disk's `sourceSnapshot` is compared with. */
  snapshotId(snapshot: Identifiers): string | null;
  /** @throws {SnapshotError} kind `not-found` when there is no such instance */
  findInstance(instance: string, options: Cancellable): Promise<Instance>;
  /**
   * Are all of them free to be deleted, as far as can be told beforehand?
   * @throws {SnapshotError} kind `locked`
   */
  checkDeletable(snapshots: readonly Identifiers[], options: Cancellable): Promise<void>;
  /**
   * Also of one that is not complete yet. One that is not there is fine.
   * @returns whether it was there
   * @throws {SnapshotError} kind `locked` or another
   */
  delete(snapshot: Identifiers, options: Cancellable): Promise<boolean>;
  close(): void;
}

export type SnapshotErrorKind =
  /** There is no such instance, disk or snapshot. */
  | "not-found"
  /** The credentials are not there or don't suffice. */
  | "denied"
  /** The snapshot must not be deleted yet. */
  | "locked"
  /** The options or settings can't be right. */
  | "invalid"
  /** The cloud was not reached, or is too busy. */
  | "unreachable"
  /** The cloud says that it did not work. */
  | "failed";

export class SnapshotError extends Error {
  override readonly name = "SnapshotError";
  readonly kind: SnapshotErrorKind;
  /** The cloud's own code of the error. */
  readonly code: string | undefined;

  /** @param message one line: what was attempted, why it failed, what to do. No secrets. */
  constructor(
    kind: SnapshotErrorKind,
    message: string,
    details: { readonly code?: string | undefined; readonly cause?: unknown } = {},
  ) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.kind = kind;
    this.code = details.code;
  }
}
