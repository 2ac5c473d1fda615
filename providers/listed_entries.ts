/** What a store lists is believed only where it answers the question. */
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

function shown(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}
