/** What a taking of snapshots told its caller. */
import type {
  AttachedDisk,
  Identifiers,
  TakeOptions,
} from "../../../providers/snapshots/provider.ts";

export interface Recorder {
  readonly options: TakeOptions;
  /** By the id of the disk, the last that was told. */
  readonly created: Map<string, Identifiers>;
  readonly notices: string[];
  readonly warnings: string[];
  /** Percentages as they were told: `a 50, b null`. */
  readonly progress: string[];
}

export function recorder(given: Partial<TakeOptions> = {}): Recorder {
  const created = new Map<string, Identifiers>();
  const notices: string[] = [];
  const warnings: string[] = [];
  const progress: string[] = [];
  return {
    created,
    notices,
    warnings,
    progress,
    options: {
      tags: undefined,
      description: "Barman backup main 20260115T103000",
      limit: { ms: 20_000, option: "--limit" },
      signal: new AbortController().signal,
      onCreated: (disk: AttachedDisk, identifiers: Identifiers) => {
        created.set(disk.id, identifiers);
        given.onCreated?.(disk, identifiers);
      },
      onProgress: (all) => {
        progress.push(all.map(({ name, percent }) => `${name} ${percent}`).join(", "));
      },
      onNotice: (message) => notices.push(message),
      onWarning: (message) => warnings.push(message),
      ...Object.fromEntries(Object.entries(given).filter(([name]) => name !== "onCreated")),
    },
  };
}

/** Short pauses: tests don't wait. */
export const PAUSES = { first: 1, longest: 5 };
