/** What a store lists is believed only where it answers the question. */
import { compareKeys } from "./key_order.ts";
import { type ListEntry, StoreError } from "./object_store.ts";

/**
 * Callers cut the prefix off, and delete by what is left: a key that was not asked for must not get so far.
 * @throws {StoreError} kind `other` for what has no name (a short listing looks like deleted backups), keys without the
 * prefix, groups that are none, and sizes that no object has
 */
export function requireAnswers(
  entries: readonly ListEntry[],
  { prefix, action, where }: {
    readonly prefix: string;
    /** Follows "Cannot": `list a/b`. */
    readonly action: string;
    /** The store's description. */
    readonly where: string;
  },
): void {
  for (const entry of entries) {
    const name = entry.kind === "object" ? entry.key : entry.prefix;
    const why = name === ""
      ? "it lists something without a name"
      : !name.startsWith(prefix)
      ? `it lists ${shown(name)}, which was not asked for`
      : entry.kind === "prefix" && (!name.endsWith("/") || name === prefix)
      ? `it lists ${shown(name)} as a folder`
      : entry.kind === "object" && !(Number.isSafeInteger(entry.size) && entry.size >= 0)
      ? `it gives ${shown(name)} a size of ${entry.size}`
      : undefined;
    if (why === undefined) continue;
    throw new StoreError(
      "other",
      `Cannot ${action} in ${where}: the store's answer can't be right: ${why}`,
    );
  }
}

/**
 * Which entries of a listing, page after page, are to be told: those after `startAfter`, each once, since a group that
 * spans pages comes with each of them.
 * @returns whether an entry is one of them
 * @throws {StoreError} kind `other` for an entry before the one told last: going on from a place would leave some out
 */
export function newEntries(
  startAfter: string | undefined,
  { action, where }: { readonly action: string; readonly where: string },
): (entry: ListEntry) => boolean {
  let last: string | undefined;
  const groups = new Set<string>();
  return (entry) => {
    const name = entry.kind === "object" ? entry.key : entry.prefix;
    if (startAfter !== undefined && compareKeys(name, startAfter) <= 0) return false;
    if (name === last || groups.has(name)) return false;
    if (last !== undefined && compareKeys(name, last) < 0) {
      throw new StoreError(
        "other",
        `Cannot ${action} in ${where}: the store does not list in the order of its keys: ${
          shown(name)
        } comes after ${
          shown(last)
        }. Azure's accounts with a hierarchical namespace do so; use one without`,
      );
    }
    last = name;
    if (entry.kind === "prefix") groups.add(name);
    return true;
  };
}

function shown(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}
