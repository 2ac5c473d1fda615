import { StoreError } from "../object_store.ts";
import { withoutUser } from "../url_in_messages.ts";

/**
 * The directory that a `file://` URL names: an absolute path without a trailing slash.
 *
 * Accepted are `file:///dir` and `file://localhost/dir`, percent-encoded where needed.
 * @throws {StoreError} kind `invalid` for anything else, with what to write instead.
 */
export function directoryOfUrl(url: string): string {
  const parts = /^file:(\/\/([^/?#]*))?([^?#]*)([?#].*)?$/is.exec(url);
  if (parts === null) throw refused(url, "it does not begin with file://");
  const [, authority, host = "", encodedPath = "", queryOrFragment] = parts;
  if (queryOrFragment !== undefined) {
    throw refused(url, "? and # are not part of a path; write them %3F and %23");
  }
  if (authority === undefined) throw refused(url, "write file:///absolute/directory");
  if (host !== "" && host.toLowerCase() !== "localhost") {
    const named = host.includes("@") ? "what stands between // and /" : `"${host}"`;
    throw refused(url, `${named} would be a host; write file:///absolute/directory`);
  }
  return cleanPath(url, decoded(url, encodedPath));
}

function decoded(url: string, path: string): string {
  if (/%2f/i.test(path)) throw refused(url, "%2F can't be part of a directory's name");
  try {
    return decodeURIComponent(path);
  } catch {
    throw refused(url, "it is not valid percent-encoded UTF-8; write % as %25");
  }
}

function cleanPath(url: string, path: string): string {
  if (path.includes("\0")) throw refused(url, "a path can't hold a NUL byte");
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  if (names.includes("..")) throw refused(url, "write the directory without ..");
  if (names.length === 0) throw refused(url, "name a directory below /");
  return "/" + names.join("/");
}

function refused(url: string, why: string): StoreError {
  return new StoreError("invalid", `Cannot use ${withoutUser(url)} as a local store: ${why}`);
}
