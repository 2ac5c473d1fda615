/** libpq's password file: lines of `hostname:port:database:username:password`. */
import { readFileSync } from "node:fs";
import { statOptional } from "./optional_file.ts";

export interface PasswordQuery {
  readonly path: string;
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  /** Told when the file is there and must not be used. */
  readonly warn: (message: string) => void;
}

/**
 * The password of the first line that matches; undefined when none does, or when the file is not
 * there, no plain file, unreadable, or open to other users.
 */
export function findPassword(query: PasswordQuery): string | undefined {
  const { path, warn } = query;
  const file = statOptional(path);
  if (file === undefined) return undefined;
  if (!file.isFile()) {
    warn(`Password file ${path} is not used: it is not a plain file`);
    return undefined;
  }
  if ((file.mode & 0o077) !== 0) {
    warn(
      `Password file ${path} is not used: other users have access to it (chmod 0600 makes it good)`,
    );
    return undefined;
  }
  try {
    return passwordIn(readFileSync(path, "utf8"), query);
  } catch (error) {
    warn(`Password file ${path} is not used: ${error instanceof Error ? error.message : error}`);
    return undefined;
  }
}

/** The same for the file's text. */
export function passwordIn(
  text: string,
  query: Pick<PasswordQuery, "host" | "port" | "database" | "user">,
): string | undefined {
  const wanted = [query.host, String(query.port), query.database, query.user];
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith("#")) continue;
    const { fields, rest } = firstFields(line, wanted.length);
    const matches = fields.length === wanted.length &&
      fields.every((field, index) => field.raw === "*" || field.text === wanted[index]);
    if (matches && rest !== undefined) return rest.replace(/\\(.)/gs, "$1");
  }
  return undefined;
}

interface Field {
  readonly raw: string;
  readonly text: string;
}

/** Fields end at `:`; a backslash takes the next character as it is. `rest` follows the last `:`. */
function firstFields(line: string, count: number): { fields: Field[]; rest: string | undefined } {
  const fields: Field[] = [];
  let rest = line;
  while (fields.length < count) {
    const match = /^((?:\\.|[^:\\])*):/s.exec(rest);
    if (match === null) return { fields, rest: undefined };
    const raw = match[1] ?? "";
    fields.push({ raw, text: raw.replace(/\\(.)/gs, "$1") });
    rest = rest.slice(match[0].length);
  }
  return { fields, rest };
}
