/** Files that libpq looks for at usual places, such as the home directory. */
import { type Stats, statSync } from "node:fs";

/**
 * What is at a path; undefined when nothing is, or when we may not look. libpq takes both alike: a service that
 * keeps the HOME of root must still be able to connect.
 */
export function statOptional(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
