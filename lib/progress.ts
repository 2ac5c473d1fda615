/** How long jobs tell how far they are. The domain calls the listener; how it looks is the caller's matter. */
export interface Progress {
  /** What is being done now, in a few words: `copying data`, `tablespace ts1`, `waiting for the last WAL`. */
  readonly activity: string;
  /** Bytes of the source done so far, over the whole job. */
  readonly doneBytes: number;
  /** Bytes in all; null while not known. */
  readonly totalBytes: number | null;
}

export type ProgressListener = (progress: Progress) => void;
