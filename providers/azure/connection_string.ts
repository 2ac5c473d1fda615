import { StoreError } from "../object_store.ts";

/** What AZURE_STORAGE_CONNECTION_STRING says. */
export interface ConnectionString {
  /** Of the blob service, without a trailing slash; with a path on emulators. */
  readonly endpoint: string;
  readonly account: string | undefined;
  /** One of these two. */
  readonly key: string | undefined;
  readonly sas: string | undefined;
}

/** The account of all emulators; its name and key are public. */
const EMULATOR_ACCOUNT = "devstoreaccount1";
const EMULATOR_KEY =
  "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/**
 * Read a connection string as the portal and `az storage account show-connection-string` give it:
 * `NAME=VALUE;…` with AccountName and AccountKey, or BlobEndpoint and SharedAccessSignature.
 *
 * @throws {StoreError} kind `invalid`, saying what is missing and repeating no value.
 */
export function parseConnectionString(text: string): ConnectionString {
  const settings = new Map<string, string>();
  for (const setting of text.trim().split(";")) {
    if (setting.trim() === "") continue;
    const [, name, value = ""] = /^\s*(\w+)\s*=(.*)$/s.exec(setting) ?? [];
    if (name === undefined) throw malformed("it is not made of NAME=VALUE;NAME=VALUE");
    settings.set(name.toLowerCase(), value.trim());
  }
  const of = (name: string) => settings.get(name.toLowerCase()) || undefined;
  if (of("UseDevelopmentStorage")?.toLowerCase() === "true") return emulator(of);

  const account = of("AccountName");
  const endpoint = blobEndpoint(of, account);
  const sas = of("SharedAccessSignature")?.replace(/^\?/, "");
  if (sas !== undefined) return { endpoint, account, key: undefined, sas };
  const key = of("AccountKey");
  if (key === undefined) throw malformed("it has neither AccountKey nor SharedAccessSignature");
  if (account === undefined) throw malformed("it has an AccountKey but no AccountName");
  return { endpoint, account, key, sas: undefined };
}

type Settings = (name: string) => string | undefined;

function blobEndpoint(of: Settings, account: string | undefined): string {
  const given = of("BlobEndpoint")?.replace(/\/+$/, "");
  if (given !== undefined) {
    if (/^https?:\/\/[^/]/i.test(given) && URL.canParse(given) && !/[?@]/.test(given)) return given;
    throw malformed("its BlobEndpoint is not a plain http(s) URL");
  }
  if (account === undefined) throw malformed("it has neither BlobEndpoint nor AccountName");
  const protocol = of("DefaultEndpointsProtocol")?.toLowerCase() ?? "https";
  if (protocol !== "http" && protocol !== "https") {
    throw malformed("its DefaultEndpointsProtocol is neither http nor https");
  }
  return `${protocol}://${account}.blob.${of("EndpointSuffix") ?? "core.windows.net"}`;
}

function emulator(of: Settings): ConnectionString {
  const host = (of("DevelopmentStorageProxyUri") ?? "http://127.0.0.1").replace(/\/+$/, "");
  return {
    endpoint: of("BlobEndpoint")?.replace(/\/+$/, "") ?? `${host}:10000/${EMULATOR_ACCOUNT}`,
    account: EMULATOR_ACCOUNT,
    key: EMULATOR_KEY,
    sas: undefined,
  };
}

function malformed(why: string): StoreError {
  return new StoreError("invalid", `Cannot use AZURE_STORAGE_CONNECTION_STRING: ${why}`);
}
