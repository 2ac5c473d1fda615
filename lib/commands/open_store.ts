/** From the options of a command to an open store. Every command that uses a store goes through here. */
import type { CommandContext } from "../cli/command.ts";
import type { CommonValues } from "../cli/common_options.ts";
import { CommandError, EXIT, type ExitCode } from "../cli/exit_codes.ts";
import { type ServerLayout, serverLayout } from "../layout.ts";
import type { ObjectStore } from "../../providers/object_store.ts";
import { openStore, type StoreOptions } from "../../providers/open.ts";

export interface OpenedServer {
  readonly store: ObjectStore;
  /** Where the server's things are in it. */
  readonly layout: ServerLayout;
}

/**
 * Attempts of each request for work of hours: with growing pauses the store may be away for about a minute.
 * Commands that are called again anyway (archive_command) give up sooner.
 */
export const PATIENT_ATTEMPTS = 10;

/** What WRITE_ENCRYPTION results in. */
export interface EncryptionValues {
  readonly encryption: StoreOptions["encryption"];
  readonly sseKmsKeyId: string | undefined;
  readonly encryptionScope: string | undefined;
  readonly kmsKeyName: string | undefined;
}

/** Options of `StoreOptions` that not all commands have. */
export type ExtraStoreOptions =
  & Partial<EncryptionValues>
  & Pick<
    StoreOptions,
    "attempts" | "maxBandwidth" | "maxBlockSize" | "maxConcurrency" | "maxSinglePutSize"
  >;

/**
 * Open the store of a URL, use it, and close it, however the use ends. Nothing is sent by opening.
 * @throws {StoreError} kind `invalid` for a URL that the provider does not understand (exit code 4)
 */
export async function withStore<T>(
  url: string,
  serverName: string,
  values: CommonValues,
  context: Pick<CommandContext, "env" | "log">,
  use: (server: OpenedServer) => Promise<T>,
  extra: ExtraStoreOptions = {},
): Promise<T> {
  const { store, location } = await openStore(url, {
    provider: values.cloudProvider,
    endpointUrl: values.endpointUrl,
    awsProfile: values.awsProfile,
    addressingStyle: values.addressingStyle,
    readTimeout: values.readTimeout,
    azureCredential: values.azureCredential,
    sseCustomerKey: values.sseCustomerKey,
    ...extra,
    env: context.env,
    // What had to be tried again is the first sign of trouble, and the user should see it.
    onNotice: (message) => context.log.warning(message),
  });
  try {
    return await use({ store, layout: serverLayout(location.prefix, serverName) });
  } finally {
    await store.close();
  }
}

/** What the commands that look at what is there have on their command line. */
export interface SourceValues extends CommonValues {
  readonly sourceUrl: string;
  readonly serverName: string;
}

/** The same for these commands, which with `-t` do nothing but look whether the store can be reached. */
export async function withSource(
  values: SourceValues,
  context: CommandContext,
  use: (server: OpenedServer) => Promise<ExitCode>,
  extra: ExtraStoreOptions = {},
): Promise<ExitCode> {
  const { log, signal } = context;
  return await withStore(values.sourceUrl, values.serverName, values, context, async (server) => {
    if (!values.test) return await use(server);
    const { testConnection } = await import("./test_connection.ts");
    return await testConnection(server.store, log, { signal });
  }, extra);
}

/**
 * The encryption options, checked.
 * @throws {CommandError} exit code 4: a KMS key without the encryption that uses it
 */
export function encryptionOf(values: EncryptionValues): EncryptionValues {
  const { encryption, sseKmsKeyId, encryptionScope, kmsKeyName } = values;
  if (sseKmsKeyId !== undefined && encryption !== "aws:kms") {
    throw new CommandError(
      EXIT.generalError,
      "--sse-kms-key-id needs the encryption that uses the key: add -e aws:kms",
    );
  }
  return { encryption, sseKmsKeyId, encryptionScope, kmsKeyName };
}
