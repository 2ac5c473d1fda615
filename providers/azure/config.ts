/**
 * Which endpoint, container and credential a URL, the options and the environment mean, by Barman's
 * rules: `--azure-credential`, then AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_SAS_TOKEN,
 * AZURE_STORAGE_KEY, then Azure's default credentials.
 */
import { Buffer } from "node:buffer";
import { requestsCaBundle } from "../certificates.ts";
import { StoreError } from "../object_store.ts";
import type { StoreOptions } from "../open.ts";
import { parseConnectionString } from "./connection_string.ts";
import { withoutSecrets } from "../url_in_messages.ts";
import { type AzureUrl, containerAndPrefix, parseAzureUrl } from "./url.ts";

export interface AzureConfig {
  /** Of the blob service, without a trailing slash. */
  readonly endpoint: string;
  readonly container: string;
  readonly prefix: string;
  readonly credential: AzureCredential;
  /** Where the credential comes from, for a person. */
  readonly credentialSource: string;
  readonly sizes: UploadSizes;
  /** PEM text of the authorities to trust instead of the runtime's. */
  readonly ca: string | undefined;
}

export type AzureCredential =
  | { readonly kind: "key"; readonly account: string; readonly key: string }
  /** Without the question mark. */
  | { readonly kind: "sas"; readonly token: string }
  | {
    readonly kind: "token";
    readonly choice: TokenChoice;
    /** Where tokens for this cloud are had, unless AZURE_AUTHORITY_HOST says otherwise. */
    readonly authorityHost: string | undefined;
  };

export type TokenChoice = NonNullable<StoreOptions["azureCredential"]>;

/** How `put` sends a large body. */
export interface UploadSizes {
  /** Largest body of a single request, in bytes. */
  readonly singlePut: number;
  /** Of the blocks of a larger one, in bytes. */
  readonly block: number;
  /** Blocks under way at once. */
  readonly concurrency: number;
}

const MiB = 1024 ** 2;

/** What Barman uses where no option says otherwise. */
const SIZES: UploadSizes = { singlePut: 4 * MiB, block: 2 * MiB, concurrency: 8 };
/** With a connection string Barman leaves sizes to Azure's Python SDK, options or not. */
const CONNECTION_STRING_SIZES = { singlePut: 64 * MiB, block: 4 * MiB };

/** @throws {StoreError} kind `invalid` for a URL or a setting that can't be right. */
export async function readAzureConfig(url: string, options: StoreOptions): Promise<AzureConfig> {
  const parsed = parseAzureUrl(url);
  const { env } = options;
  const sizes: UploadSizes = {
    singlePut: options.maxSinglePutSize ?? SIZES.singlePut,
    block: options.maxBlockSize ?? SIZES.block,
    concurrency: options.maxConcurrency ?? SIZES.concurrency,
  };
  const common = { sizes, ca: await requestsCaBundle(env) };

  const connectionString = env["AZURE_STORAGE_CONNECTION_STRING"]?.trim();
  if (options.azureCredential === undefined && connectionString) {
    return { ...common, ...byConnectionString(url, parsed, connectionString, sizes) };
  }
  if (parsed.form === "emulator") {
    throw new StoreError(
      "invalid",
      options.azureCredential === undefined
        ? `Cannot use ${
          withoutSecrets(url)
        } as an Azure store: its host is taken for an emulator, ` +
          "which needs AZURE_STORAGE_CONNECTION_STRING"
        : `Cannot use --azure-credential with ${withoutSecrets(url)}: its host is taken for an ` +
          "emulator, which takes nothing but AZURE_STORAGE_CONNECTION_STRING",
    );
  }
  return {
    ...common,
    endpoint: parsed.origin,
    ...containerAndPrefix(url, parsed.path, 0),
    ...otherCredential(parsed, options),
  };
}

type Chosen = Pick<AzureConfig, "credential" | "credentialSource">;

/** The endpoint is the connection string's; the URL gives container and path. */
function byConnectionString(
  url: string,
  parsed: AzureUrl,
  text: string,
  sizes: UploadSizes,
): Pick<AzureConfig, "endpoint" | "container" | "prefix" | "sizes"> & Chosen {
  const credentialSource = "AZURE_STORAGE_CONNECTION_STRING";
  const { endpoint, account, key, sas } = parseConnectionString(text);
  const credential = key !== undefined && account !== undefined
    ? sharedKey(account, key, credentialSource)
    : sasToken(sas ?? "", credentialSource);
  return {
    endpoint,
    ...containerAndPrefix(url, parsed.path, accountComes(parsed) ? 1 : 0),
    credential,
    credentialSource,
    sizes: { ...sizes, ...CONNECTION_STRING_SIZES },
  };
}

/**
 * Is the path's first component the account? On hosts that Barman does not know it always is; Barman
 * knows none but the public cloud's, so with the others' an account named once more is skipped.
 */
function accountComes({ form, account, isPublicCloud, path }: AzureUrl): boolean {
  if (isPublicCloud) return false;
  return form !== "account" || (path[0] === account && (path[1] ?? "") !== "");
}

function otherCredential(parsed: AzureUrl, { env, azureCredential }: StoreOptions): Chosen {
  const { authorityHost } = parsed;
  if (azureCredential !== undefined) {
    return {
      credential: { kind: "token", choice: azureCredential, authorityHost },
      credentialSource: `--azure-credential ${azureCredential}`,
    };
  }
  const sas = env["AZURE_STORAGE_SAS_TOKEN"]?.trim();
  if (sas) {
    const credentialSource = "AZURE_STORAGE_SAS_TOKEN";
    return { credential: sasToken(sas, credentialSource), credentialSource };
  }
  const key = env["AZURE_STORAGE_KEY"]?.trim();
  if (key) {
    const credentialSource = "AZURE_STORAGE_KEY";
    const account = parsed.account ?? env["AZURE_STORAGE_ACCOUNT"]?.trim();
    if (!account) {
      throw new StoreError(
        "invalid",
        `Cannot use AZURE_STORAGE_KEY with ${parsed.origin}: the host does not tell the account; ` +
          "give its name in AZURE_STORAGE_ACCOUNT",
      );
    }
    return { credential: sharedKey(account, key, credentialSource), credentialSource };
  }
  return {
    credential: { kind: "token", choice: "default", authorityHost },
    credentialSource: "Azure's default credentials",
  };
}

function sharedKey(account: string, key: string, source: string): AzureCredential {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(key) || Buffer.from(key, "base64").length < 16) {
    throw new StoreError(
      "invalid",
      `The account key in ${source} can't be right: it is not the base64 text that Azure shows`,
    );
  }
  return { kind: "key", account, key };
}

function sasToken(text: string, source: string): AzureCredential {
  const token = text.replace(/^\?/, "");
  if (!/(^|&)sig=[^&]/.test(token) || /[\s#]/.test(token)) {
    throw new StoreError(
      "invalid",
      `The SAS token in ${source} can't be right: it is not of the form sv=…&sig=…`,
    );
  }
  return { kind: "sas", token };
}
