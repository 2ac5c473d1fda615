/**
 * The quick way for calls that a call before has prepared: answered from the words as they are, before the parser and
 * the commands are loaded. What is not sure is left to the long way.
 */
import { basename, dirname, resolve } from "node:path";
import { parseWalName } from "../wal/segment.ts";
import { spoolPath } from "../wal/spool.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** Variables that say where a store is; the same words mean another one when they change. */
const PLACE_VARIABLES = [
  "AWS_ENDPOINT_URL",
  "AWS_ENDPOINT_URL_S3",
  "AWS_PROFILE",
  "AWS_DEFAULT_PROFILE",
  "AZURE_STORAGE_ACCOUNT",
  "AZURE_STORAGE_CONNECTION_STRING",
  "STORAGE_EMULATOR_HOST",
] as const;

/**
 * Where calls of wal-archive with these words leave notes: the same words, but for the path, in the same surroundings.
 * @param directory `--spool-dir`, the default when absent
 */
export function archiveSpool(
  directory: string | undefined,
  words: readonly string[],
  path: string,
  env: Env,
): Promise<string> {
  const others = words.filter((word) => word !== path);
  return spoolPath(directory, ["wal-archive", resolve(dirname(path)), ...others, ...places(env)]);
}

/** Where calls of wal-restore with these words leave segments: the same words, but for the two last. */
export function restoreSpool(
  directory: string | undefined,
  words: readonly string[],
  wal: readonly [name: string, destination: string],
  env: Env,
): Promise<string> {
  const others = words.filter((word) => !wal.includes(word));
  return spoolPath(directory, ["wal-restore", ...others, ...places(env)]);
}

function places(env: Env): string[] {
  return PLACE_VARIABLES.map((name) => `${name}=${env[name] ?? ""}`);
}

/**
 * Answer a call from the spool.
 * @param words after the command's name
 * @returns false when that can't be done; nothing has then happened
 */
export async function answerFromSpool(
  command: string,
  words: readonly string[],
  env: Env,
): Promise<boolean> {
  try {
    if (command === "wal-archive") return await archivedBefore(words, env);
    if (command === "wal-restore") return await fetchedBefore(words, env);
  } catch {
    // The long way meets the same trouble and tells of it.
  }
  return false;
}

async function archivedBefore(words: readonly string[], env: Env): Promise<boolean> {
  const path = words.at(-1);
  if (path === undefined || !hasOption(words, "--look-ahead")) return false;
  // As a hook script of Barman the file is another one.
  if (env["BARMAN_HOOK"] || parseWalName(basename(path))?.kind !== "segment") return false;
  const { isNoted } = await import("../wal/archive_notes.ts");
  return await isNoted(await archiveSpool(spoolDirectory(words), words, path, env), path);
}

async function fetchedBefore(words: readonly string[], env: Env): Promise<boolean> {
  const [name, destination] = words.slice(-2);
  if (name === undefined || destination === undefined) return false;
  if (!hasOption(words, "-p") && !hasOption(words, "--parallel")) return false;
  if (parseWalName(name)?.kind !== "segment") return false;
  const { takeFetched } = await import("../wal/prefetch.ts");
  const spool = await restoreSpool(spoolDirectory(words), words, [name, destination], env);
  return await takeFetched(spool, name, destination);
}

/** `--name value` or `--name=value`; abbreviations go the long way. */
function hasOption(words: readonly string[], option: string): boolean {
  return words.some((word) => word === option || word.startsWith(`${option}=`));
}

function spoolDirectory(words: readonly string[]): string | undefined {
  const at = words.lastIndexOf("--spool-dir");
  if (at >= 0) return words[at + 1];
  return words.findLast((word) => word.startsWith("--spool-dir="))?.slice("--spool-dir=".length);
}
