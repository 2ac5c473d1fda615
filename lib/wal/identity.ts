/**
 * Whose WAL an archive holds: one small JSON object beside the folders that Barman looks into, written when the first
 * segment is archived. Two clusters that archive under one name would make both archives worthless.
 *
 * It costs one small read for each call of wal-archive, at the same time as the file is read and compressed, and tells
 * three things that would otherwise cost requests: the cluster, which compressions are in use (so nobody has to look
 * for the same segment under another suffix), and whether the store honours conditional writes (so that a put need
 * not look first).
 */
import type { Logger } from "../cli/log.ts";
import type { ServerLayout } from "../layout.ts";
import { majorOfMagic } from "./header.ts";
import { readText } from "../backup/small_object.ts";
import {
  type Cancellable,
  isStoreError,
  type ObjectStore,
  type PutOptions,
} from "../../providers/object_store.ts";

export interface ArchiveIdentity {
  readonly systemIdentifier: bigint;
  /** Page magic of its WAL: a cluster keeps its major version, since pg_upgrade makes another one. */
  readonly magic: number;
  /** Compression suffixes that segments may have, `""` for none. */
  readonly suffixes: readonly string[];
  /** What was found out about conditional writes, and about which store. */
  readonly conditionalWrites: ConditionalWrites | null;
  /** When the suffixes last changed; null when that was not recorded. */
  readonly since: Date | null;
}

interface ConditionalWrites {
  /** `ObjectStore.description`: objects may be copied to another store. */
  readonly store: string;
  readonly result: "kept" | "ignored" | "refused" | "unproven";
}

/** What the header of a segment tells of its cluster. */
export type Cluster = Pick<ArchiveIdentity, "systemIdentifier" | "magic">;

export interface Verdict {
  /** The same file may be there under another compression suffix: look for it. */
  readonly siblings: boolean;
  /** See `PutOptions.conditionKept`. */
  readonly conditionKept: boolean;
}

/** What is known when the archive could not be asked. */
export const NOTHING_KNOWN: Verdict = { siblings: true, conditionKept: false };

/** What several files of one call have asked already, by cluster and suffix. */
export type Verdicts = Map<string, Promise<Verdict>>;

/** The archive belongs to another cluster, or the file is not what its name says. The message tells what to do. */
export class WrongWalError extends Error {
  override readonly name = "WrongWalError";
}

export interface IdentityOptions extends Cancellable {
  readonly log: Logger;
  /** For objects that are written: what the segments get. */
  readonly put?: Pick<PutOptions, "tags"> | undefined;
  /** An archive of another cluster becomes this one's. */
  readonly takeOver?: boolean | undefined;
}

/**
 * For so long after the suffixes have changed, milliseconds, an archiver that has not heard of it may be at work: until
 * then everybody looks for copies.
 */
const SETTLING_MS = 5000;
/** A JSON object of a few hundred bytes. */
const MAX_SIZE = 64 * 1024;

/**
 * Is this the cluster whose archive it is? At first use the archive becomes the cluster's, unless the newest backup or
 * the newest segment in it are another's.
 * @param suffix of the compression that is about to be used, `""` for none
 * @throws {WrongWalError}; {StoreError} when the store could not tell, permission apart: who may only write is let in
 * with a warning
 */
export async function requireCluster(
  store: ObjectStore,
  layout: ServerLayout,
  cluster: Cluster,
  suffix: string,
  options: IdentityOptions,
): Promise<Verdict> {
  try {
    for (let attempt = 1;; attempt++) {
      const found = await readIdentity(store, layout, options);
      if (found === "damaged") return NOTHING_KNOWN;
      if (found === null) {
        const made = await firstUse(store, layout, cluster, suffix, options);
        if (made !== null) return verdictOf(made, store);
        // Somebody else was faster.
        if (attempt < 3) continue;
        throw new WrongWalError(`Cannot read ${layout.identity}: it comes and goes`);
      }
      const known =
        found.systemIdentifier === cluster.systemIdentifier && found.magic === cluster.magic
          ? await completed(store, layout, found, suffix, options)
          : await takeOver(store, layout, found, cluster, suffix, options);
      return verdictOf(known, store);
    }
  } catch (error) {
    if (!isStoreError(error, "denied")) throw error;
    options.log.warning(
      `Cannot check whether the archive belongs to this cluster: ${error.message} (allow to read ` +
        `${layout.identity}, or use --no-wal-check)`,
    );
    return NOTHING_KNOWN;
  }
}

/** @returns null when there is none; `damaged`, after a warning, when it can't be understood */
export async function readIdentity(
  store: ObjectStore,
  layout: ServerLayout,
  options: IdentityOptions,
): Promise<ArchiveIdentity | "damaged" | null> {
  let text: string;
  try {
    text = await readText(store, layout.identity, MAX_SIZE, options);
  } catch (error) {
    if (isStoreError(error, "not-found")) return null;
    if (isStoreError(error) || options.signal?.aborted) throw error;
    return damaged(error instanceof Error ? error.message : String(error));
  }
  const identity = parseIdentity(text);
  return identity ?? damaged("it is not what barman-cloud writes");

  function damaged(reason: string): "damaged" {
    options.log.warning(
      `Cannot use ${layout.identity}: ${reason}; whose archive it is can't be checked (delete the ` +
        "object, and the next segment makes a new one)",
    );
    return "damaged";
  }
}

/** @returns null for what can't be used */
export function parseIdentity(text: string): ArchiveIdentity | null {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isRecord(json)) return null;
  const { systemIdentifier, pageMagic, suffixes, conditionalWrites, since } = json;
  if (typeof systemIdentifier !== "string" || !/^\d{1,20}$/.test(systemIdentifier)) return null;
  if (typeof pageMagic !== "string" || !/^0x[0-9a-f]{4}$/i.test(pageMagic)) return null;
  if (!Array.isArray(suffixes) || !suffixes.every((suffix) => typeof suffix === "string")) {
    return null;
  }
  return {
    systemIdentifier: BigInt(systemIdentifier),
    magic: Number(pageMagic),
    suffixes,
    conditionalWrites: parseConditionalWrites(conditionalWrites),
    since: typeof since === "string" && Number.isFinite(Date.parse(since)) ? new Date(since) : null,
  };
}

function parseConditionalWrites(json: unknown): ConditionalWrites | null {
  if (!isRecord(json)) return null;
  const { store, result } = json;
  if (typeof store !== "string") return null;
  const known = (["kept", "ignored", "refused", "unproven"] as const).find((word) =>
    word === result
  );
  return known === undefined ? null : { store, result: known };
}

function isRecord(json: unknown): json is Record<string, unknown> {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}

function textOf(
  { systemIdentifier, magic, suffixes, conditionalWrites, since }: ArchiveIdentity,
): string {
  return JSON.stringify(
    {
      about: "Written by barman-cloud wal-archive: the PostgreSQL cluster whose WAL this archive " +
        "holds. After pg_upgrade use wal-archive --new-cluster once",
      systemIdentifier: String(systemIdentifier),
      pageMagic: `0x${magic.toString(16)}`,
      suffixes,
      ...(since === null ? {} : { since }),
      ...(conditionalWrites === null ? {} : { conditionalWrites }),
    },
    null,
    2,
  ) + "\n";
}

function verdictOf(identity: ArchiveIdentity, store: ObjectStore): Verdict {
  const { suffixes, conditionalWrites, since } = identity;
  const settled = since === null || Math.abs(Date.now() - since.getTime()) > SETTLING_MS;
  return {
    siblings: suffixes.length > 1 || !settled,
    conditionKept: conditionalWrites?.store === store.description &&
      conditionalWrites.result === "kept",
  };
}

/** @returns null when another process has just recorded one */
async function firstUse(
  store: ObjectStore,
  layout: ServerLayout,
  cluster: Cluster,
  suffix: string,
  options: IdentityOptions,
): Promise<ArchiveIdentity | null> {
  const { ownerOfArchive } = await import("./archive_owner.ts");
  const owner = await ownerOfArchive(store, layout, options);
  const { systemIdentifier = cluster.systemIdentifier, magic = cluster.magic } = owner.cluster;
  const isOther = systemIdentifier !== cluster.systemIdentifier || magic !== cluster.magic;
  if (isOther && options.takeOver !== true) {
    throw wrongCluster(layout, { systemIdentifier, magic }, cluster, owner.evidence);
  }
  return await record(store, layout, {
    ...cluster,
    suffixes: [...new Set([...owner.suffixes, suffix])].sort(),
    conditionalWrites: null,
    since: new Date(),
  }, options);
}

/** The archive is another's. If there is nothing left of that one's backups and WAL, or the user says so, it is free. */
async function takeOver(
  store: ObjectStore,
  layout: ServerLayout,
  found: ArchiveIdentity,
  cluster: Cluster,
  suffix: string,
  options: IdentityOptions,
): Promise<ArchiveIdentity> {
  const { isUnused } = await import("./archive_owner.ts");
  const isFree = await isUnused(store, layout, options);
  if (!isFree && options.takeOver !== true) {
    throw wrongCluster(layout, found, cluster, layout.identity);
  }
  options.log.warning(
    `The archive of ${layout.server} was that of ${described(found)}${
      isFree ? " and is empty" : ""
    }: ` +
      `it now belongs to ${described(cluster)}`,
  );
  const suffixes = isFree ? [suffix] : [...new Set([...found.suffixes, suffix])].sort();
  const identity = { ...found, ...cluster, suffixes, since: new Date() };
  await write(store, layout, identity, options, false);
  return identity;
}

function wrongCluster(
  layout: ServerLayout,
  theirs: Cluster,
  ours: Cluster,
  evidence: string,
): WrongWalError {
  return new WrongWalError(
    `Refused: the archive of ${layout.server} belongs to ${
      described(theirs)
    } (by ${evidence}), and this WAL is of ` +
      `${
        described(ours)
      }. Use another SERVER_NAME; or, if this archive is to go on with this cluster (after ` +
      "pg_upgrade, say), run this command once by hand with --new-cluster, and take a base backup",
  );
}

function described({ systemIdentifier, magic }: Cluster): string {
  const major = majorOfMagic(magic);
  const version = major === null ? `WAL format 0x${magic.toString(16)}` : `PostgreSQL ${major}`;
  return `the cluster with system identifier ${systemIdentifier} (${version})`;
}

/** An identity without what this call adds gets it. */
async function completed(
  store: ObjectStore,
  layout: ServerLayout,
  found: ArchiveIdentity,
  suffix: string,
  options: IdentityOptions,
): Promise<ArchiveIdentity> {
  let identity = found;
  if (!found.suffixes.includes(suffix)) {
    // Before the first such object is there, so that those who use another suffix know where to look.
    identity = {
      ...identity,
      suffixes: [...found.suffixes, suffix].sort(),
      since: new Date(),
    };
    await write(store, layout, identity, options, false);
  }
  const { conditionalWrites } = identity;
  const proven = conditionalWrites?.store === store.description &&
    conditionalWrites.result !== "unproven";
  if (store.capabilities.looksFirst === true && !proven) {
    identity = await prove(store, layout, identity, options);
  }
  return identity;
}

/** @returns null when there is one by now */
async function record(
  store: ObjectStore,
  layout: ServerLayout,
  identity: ArchiveIdentity,
  options: IdentityOptions,
): Promise<ArchiveIdentity | null> {
  try {
    const looksFirst = store.capabilities.looksFirst === true;
    const first = looksFirst ? withResult(identity, store, "unproven") : identity;
    await write(store, layout, first, options, true);
    options.log.info(
      `The archive of ${layout.server} now belongs to the cluster with system identifier ` +
        `${identity.systemIdentifier} (${layout.identity})`,
    );
    return looksFirst ? await prove(store, layout, first, options) : first;
  } catch (error) {
    if (isStoreError(error, "exists")) return null;
    throw error;
  }
}

/**
 * Does the store honour the condition of a create-only put? It is tried on the identity itself, which is there: a store
 * that ignores the condition then holds the text that says so.
 */
async function prove(
  store: ObjectStore,
  layout: ServerLayout,
  identity: ArchiveIdentity,
  options: IdentityOptions,
): Promise<ArchiveIdentity> {
  const ignored = withResult(identity, store, "ignored");
  try {
    await write(store, layout, ignored, options, true, true);
  } catch (error) {
    if (!isStoreError(error, "exists")) throw error;
    // The provider has noticed when the condition was refused, and has looked instead.
    const result = store.capabilities.createOnlyPut ? "kept" : "refused";
    const proven = withResult(identity, store, result);
    await write(store, layout, proven, options, false);
    return proven;
  }
  options.log.warning(
    `${store.description} ignores the condition of conditional writes (If-None-Match): whether a file is there is ` +
      "looked up before it is written, which two writers at once can slip through",
  );
  return ignored;
}

function withResult(
  identity: ArchiveIdentity,
  store: ObjectStore,
  result: ConditionalWrites["result"],
): ArchiveIdentity {
  return { ...identity, conditionalWrites: { store: store.description, result } };
}

async function write(
  store: ObjectStore,
  layout: ServerLayout,
  identity: ArchiveIdentity,
  { signal, put }: IdentityOptions,
  createOnly: boolean,
  conditionKept = false,
): Promise<void> {
  const body = new TextEncoder().encode(textOf(identity));
  await store.put(layout.identity, body, { ...put, signal, createOnly, conditionKept });
}
