import { isIP } from "node:net";
import { StoreError } from "../object_store.ts";
import { withoutSecrets } from "../url_in_messages.ts";

/** What the URL of an Azure store says, before any credentials are looked at. */
export interface AzureUrl {
  /**
   * - `account`: a host of Azure's, `https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH`
   * - `emulator`: an address, a bare name or a port: `http://HOST:PORT/ACCOUNT/CONTAINER/PATH`
   * - `domain`: any other host: `https://DOMAIN/CONTAINER/PATH`, or with a connection string as above
   */
  readonly form: "account" | "emulator" | "domain";
  /** `https://HOST[:PORT]` */
  readonly origin: string;
  /** The account that the host names; undefined for the other forms. */
  readonly account: string | undefined;
  /** Barman takes every host but the public cloud's for an emulator. */
  readonly isPublicCloud: boolean;
  /** The components of the path, the last of which may be empty (a trailing slash). */
  readonly path: readonly string[];
  /** Where tokens for this cloud are had. */
  readonly authorityHost: string | undefined;
}

const PUBLIC_CLOUD = "blob.core.windows.net";

/** Azure's clouds: end of the host name of blob storage → where identities are checked. */
const CLOUDS: Readonly<Record<string, string>> = {
  [PUBLIC_CLOUD]: "https://login.microsoftonline.com",
  "blob.storage.azure.net": "https://login.microsoftonline.com",
  "blob.core.chinacloudapi.cn": "https://login.chinacloudapi.cn",
  "blob.core.usgovcloudapi.net": "https://login.microsoftonline.us",
  "blob.core.cloudapi.de": "https://login.microsoftonline.de",
};

const FORMS = "write https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH";

/**
 * Take a URL apart. Nothing in the path is decoded; a fragment and a harmless query are dropped.
 * @throws {StoreError} kind `invalid` for what is no http(s) URL, or one that holds a secret.
 */
export function parseAzureUrl(url: string): AzureUrl {
  const [, scheme = "", authority, path = "", query = ""] =
    /^(https?):\/\/([^/?#]+)([^?#]*)(\?[^#]*)?/i.exec(url) ?? [];
  const origin = `${scheme.toLowerCase()}://${authority}`;
  if (authority === undefined || !URL.canParse(origin)) {
    throw new StoreError(
      "invalid",
      `Cannot use ${withoutSecrets(url)} as an Azure store: ${FORMS}`,
    );
  }
  if (authority.includes("@")) {
    throw new StoreError(
      "invalid",
      `Cannot use ${withoutSecrets(url)} as an Azure store: a user name in the URL means nothing ` +
        `there; ${FORMS}`,
    );
  }
  if (/[?&](sig|sv)=/i.test(query)) {
    throw new StoreError(
      "invalid",
      `Cannot use ${
        withoutSecrets(url)
      } as an Azure store: its query is a SAS token, which every ` +
        "user of this machine could see; give it in AZURE_STORAGE_SAS_TOKEN",
    );
  }
  const { hostname, port } = new URL(origin);
  const cloud = Object.entries(CLOUDS).find(([suffix]) => hostname.endsWith(`.${suffix}`));
  const isAddress = isIP(hostname.replace(/^\[(.*)\]$/, "$1")) !== 0;
  return {
    form: cloud !== undefined
      ? "account"
      : port !== "" || isAddress || !hostname.includes(".")
      ? "emulator"
      : "domain",
    origin: new URL(origin).origin,
    account: cloud === undefined ? undefined : accountOf(hostname),
    isPublicCloud: cloud?.[0] === PUBLIC_CLOUD,
    path: path.replace(/^\/+/, "").split("/"),
    authorityHost: cloud?.[1],
  };
}

/** `name-secondary` is where the read-only copy of the account `name` answers. */
function accountOf(hostname: string): string {
  const [label = ""] = hostname.split(".");
  return label.replace(/-secondary$/, "");
}

/**
 * Container and key prefix of a path. A trailing slash of the prefix stays, as Barman keeps it.
 * @param skip components before the container
 * @throws {StoreError} kind `invalid` when no container is named.
 */
export function containerAndPrefix(
  url: string,
  path: readonly string[],
  skip: 0 | 1,
): { readonly container: string; readonly prefix: string } {
  const container = path[skip];
  if (container === undefined || container === "") {
    throw new StoreError(
      "invalid",
      `Cannot use ${withoutSecrets(url)} as an Azure store: it names no container; ` +
        (skip === 0 ? FORMS : "write http://HOST:PORT/ACCOUNT/CONTAINER/PATH"),
    );
  }
  return { container, prefix: path.slice(skip + 1).join("/").replace(/^\/+/, "") };
}
