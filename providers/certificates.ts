/** Certificate authorities that the user names instead of the runtime's own. */
import { readFile } from "node:fs/promises";
import { StoreError } from "./object_store.ts";

/**
 * The PEM text of the first file that is named.
 * @param sources name of the setting → path; an empty one is none
 * @throws {StoreError} kind `invalid`, with the setting's name, for a file that can't be read or holds no certificate
 */
export async function certificateAuthorities(
  sources: Readonly<Record<string, string | undefined>>,
): Promise<string | undefined> {
  for (const [name, path] of Object.entries(sources)) {
    if (!path) continue;
    let text: string;
    try {
      text = await readFile(path, "utf8");
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new StoreError("invalid", `Cannot read the certificates of ${name}: ${why}`, {
        cause: error,
      });
    }
    if (!text.includes("-----BEGIN")) {
      throw new StoreError("invalid", `${path} (${name}) holds no PEM certificate`);
    }
    return text;
  }
  return undefined;
}

/** Barman's HTTP library for Azure and Google takes the authorities from there. */
export function requestsCaBundle(
  env: Readonly<Record<string, string | undefined>>,
): Promise<string | undefined> {
  const name = "REQUESTS_CA_BUNDLE";
  return certificateAuthorities({ [name]: env[name] });
}
