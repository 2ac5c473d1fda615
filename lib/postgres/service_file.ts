/** libpq's connection service file: an INI file, a section a service. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { knownKeywords } from "./conninfo_keywords.ts";
import { ConninfoError, type ConninfoWords } from "./conninfo_text.ts";

export interface ServicePlaces {
  /** Named by the user: then it must exist. */
  readonly file: string | undefined;
  readonly home: string;
  /** Directory of the system-wide pg_service.conf; the usual ones when absent. */
  readonly systemDirectory: string | undefined;
}

const usualDirectories = ["/etc/postgresql-common", "/etc/postgresql", "/etc/sysconfig/pgsql"];

/**
 * The parameters of a service: from the user's file, else from the system's.
 *
 * @throws ConninfoError when it is not defined anywhere, or the file is malformed
 */
export function readService(service: string, places: ServicePlaces): ConninfoWords {
  const paths = [places.file ?? join(places.home, ".pg_service.conf")];
  const system = places.systemDirectory === undefined ? usualDirectories : [places.systemDirectory];
  paths.push(...system.map((directory) => join(directory, "pg_service.conf")));
  for (const path of paths) {
    const text = readOptional(path, path === places.file);
    const found = text === undefined ? undefined : serviceIn(text, service, path);
    if (found !== undefined) return found;
  }
  throw new ConninfoError(
    `Definition of service "${service}" not found in ${paths.join(", ")}`,
  );
}

/** The parameters of a service in a file's text; undefined when the file does not have it. */
export function serviceIn(
  text: string,
  service: string,
  path: string,
): ConninfoWords | undefined {
  let words: ConninfoWords | undefined;
  let inside = false;
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const trimmed = line.trim();
    if (trimmed === "" || trimmed.startsWith("#")) continue;
    const section = /^\[(.*)\]$/.exec(trimmed)?.[1];
    if (section !== undefined) {
      // The first section of a name counts.
      if (words !== undefined) return words;
      inside = section === service;
      if (inside) words = new Map();
      continue;
    }
    if (!inside || words === undefined) continue;
    const place = `line ${index + 1} of ${path}`;
    const equals = trimmed.indexOf("=");
    if (equals < 0) throw new ConninfoError(`Cannot read ${place}: it has no "="`);
    const keyword = trimmed.slice(0, equals);
    if (!knownKeywords.has(keyword) || keyword === "service" || keyword === "servicefile") {
      throw new ConninfoError(`Cannot read ${place}: "${keyword}" is no connection option there`);
    }
    if (!words.has(keyword)) words.set(keyword, trimmed.slice(equals + 1));
  }
  return words;
}

function readOptional(path: string, mustExist: boolean): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (!mustExist && ["ENOENT", "ENOTDIR", "EACCES"].includes(code)) return undefined;
    throw new ConninfoError(
      `Cannot read the service file ${path}: ${error instanceof Error ? error.message : error}`,
    );
  }
}
