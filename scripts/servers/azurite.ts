/**
 * Azurite, Microsoft's emulator of Azure Storage, for tests. Deno fetches and runs it by the versions
 * pinned in azurite.lock, so it is no part of the product's import map, and ordinary runs never load it.
 *
 * To renew the lock: remove it, then
 * `deno run -A --no-config --lock=scripts/servers/azurite.lock npm:azurite@VERSION/azurite-blob --version`
 *
 * Instead, TEST_AZURE_CONNECTION_STRING may name an account of Azure's; tests make containers there
 * and remove them.
 */
import { randomBytes } from "node:crypto";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BlobServiceClient } from "@azure/storage-blob";
import { skipUnless } from "../../tests/skips.ts";
import { freePort, startServer } from "./server_processes.ts";

const PACKAGE = "npm:azurite@3.37.0/azurite-blob";
const LOCK = fileURLToPath(new URL("azurite.lock", import.meta.url));
const FETCH_TIMEOUT_MS = 5 * 60_000;

export interface Azurite {
  /** `http://127.0.0.1:PORT` (https with a certificate); the account follows in the path. */
  readonly origin: string;
  readonly account: string;
  /** Base64. */
  readonly key: string;
  stop(): Promise<void>;
}

export interface AzuriteOptions {
  /** Files; with them it speaks https and takes bearer tokens, whose signature it does not check. */
  readonly tls?: { readonly certificate: string; readonly key: string } | undefined;
}

/**
 * Start a server with an account of its own, on a free port, with its data in a temporary directory.
 * It ends with this process, however that ends.
 * @throws Error when it can't be fetched or does not answer within half a minute.
 */
export async function startAzurite({ tls }: AzuriteOptions = {}): Promise<Azurite> {
  await ensureFetched();
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-azurite-"));
  const port = await freePort();
  const account = `test${randomBytes(6).toString("hex")}`;
  const key = randomBytes(64).toString("base64");
  const args = denoArguments([
    ...["--blobHost", "127.0.0.1", "--blobPort", `${port}`, "--location", directory],
    ...["--silent", "--disableTelemetry", "--skipApiVersionCheck"],
    ...(tls === undefined ? [] : ["--oauth", "basic", "--cert", tls.certificate, "--key", tls.key]),
  ]);
  const stop = await startServer("Azurite", port, Deno.execPath(), args, {
    env: { ...serverEnvironment(), AZURITE_ACCOUNTS: `${account}:${key}` },
    remove: directory,
  });
  return {
    origin: `${tls === undefined ? "http" : "https"}://127.0.0.1:${port}`,
    account,
    key,
    stop,
  };
}

function denoArguments(args: readonly string[]): string[] {
  return ["run", "-A", "--quiet", "--no-config", "--frozen", `--lock=${LOCK}`, PACKAGE, ...args];
}

function serverEnvironment(): Record<string, string> {
  const env = Deno.env.toObject();
  for (const name of Object.keys(env)) if (/^(AZURE_|AZURITE_)/.test(name)) delete env[name];
  return env;
}

let fetched: Promise<void> | undefined;

/** The first time takes a download; a start is then quick and can be given a short time. */
function ensureFetched(): Promise<void> {
  return fetched ??= (async () => {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: denoArguments(["--version"]),
      cwd: tmpdir(),
      signal: AbortSignal.timeout(FETCH_TIMEOUT_MS),
      stdout: "null",
      stderr: "piped",
    }).output();
    if (code === 0) return;
    const text = new TextDecoder().decode(stderr).trim().slice(-1000);
    throw new Error(`Cannot fetch ${PACKAGE}: ${text || `deno ended with ${code}`}`);
  })();
}

export interface AzureForTests {
  /** Before `/CONTAINER`: `http://127.0.0.1:PORT/ACCOUNT`, or an account of Azure's. */
  readonly url: string;
  readonly connectionString: string;
  /**
   * The environment for stores and for processes under test: credentials, and nothing of the
   * developer's own. A process with it that calls `startAzuriteForTests` shares this server.
   */
  readonly env: Readonly<Record<string, string>>;
  /** Undefined on an account of Azure's. */
  readonly azurite: Omit<Azurite, "stop"> | undefined;
  /** The name of an empty container. */
  newContainer(): Promise<string>;
  /** End the server if this call started it; remove the containers that this call made elsewhere. */
  stop(): Promise<void>;
}

/** Holds the server that another process of the same test run has started, as JSON. */
const SHARED = "TEST_AZURE_SHARED";

/** @returns null when there is none; what would enable it has then been said. */
export async function startAzuriteForTests(): Promise<AzureForTests | null> {
  const shared = Deno.env.get(SHARED);
  if (shared !== undefined && shared !== "") {
    return fromAzurite(JSON.parse(shared), () => Promise.resolve());
  }
  const connectionString = Deno.env.get("TEST_AZURE_CONNECTION_STRING");
  if (connectionString !== undefined && connectionString !== "") {
    return fromAccount(connectionString);
  }
  try {
    const server = await startAzurite();
    const { origin, account, key } = server;
    return fromAzurite({ origin, account, key }, server.stop);
  } catch (error) {
    skipUnless(
      false,
      `Tests against Azurite (${error instanceof Error ? error.message : error})`,
      "access to the npm registry, or TEST_AZURE_CONNECTION_STRING",
    );
    return null;
  }
}

/** The connection string of an Azurite server. */
export function connectionStringOf({ origin, account, key }: Omit<Azurite, "stop">): string {
  return `DefaultEndpointsProtocol=${origin.replace(/:.*$/, "")};AccountName=${account};` +
    `AccountKey=${key};BlobEndpoint=${origin}/${account};`;
}

function fromAzurite(server: Omit<Azurite, "stop">, stop: () => Promise<void>): AzureForTests {
  const connectionString = connectionStringOf(server);
  return {
    url: `${server.origin}/${server.account}`,
    connectionString,
    env: {
      AZURE_STORAGE_CONNECTION_STRING: connectionString,
      [SHARED]: JSON.stringify(server),
    },
    azurite: server,
    newContainer: () => makeContainer(connectionString),
    stop,
  };
}

function fromAccount(connectionString: string): AzureForTests {
  const client = BlobServiceClient.fromConnectionString(connectionString);
  const made: string[] = [];
  return {
    url: client.url.replace(/\?.*$/, "").replace(/\/+$/, ""),
    connectionString,
    env: { AZURE_STORAGE_CONNECTION_STRING: connectionString },
    azurite: undefined,
    async newContainer() {
      const name = await makeContainer(connectionString);
      made.push(name);
      return name;
    },
    async stop() {
      for (const name of made) await client.deleteContainer(name);
    },
  };
}

async function makeContainer(connectionString: string): Promise<string> {
  const name = `barman-cloud-test-${crypto.randomUUID()}`;
  await BlobServiceClient.fromConnectionString(connectionString).createContainer(name);
  return name;
}
