/** Where the keys that requests are signed with come from. */
import type { S3Config } from "./config.ts";
import type { HttpHandler } from "./http_handler.ts";

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
}

/** The SDK would warn on stderr, past our log, where a profile and keys are both given. */
const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

/** Keys of the environment, else the SDK's chain, which is loaded then and renews what expires. */
export function credentialsOf(config: S3Config, handler: HttpHandler): () => Promise<Credentials> {
  const { environmentKeys } = config;
  if (environmentKeys !== undefined) return () => Promise.resolve(environmentKeys);
  let chain: Promise<() => Promise<Credentials>> | undefined;
  return async () => {
    chain ??= import("./sdk_credentials.ts").then(({ defaultProvider }) =>
      defaultProvider(credentialOptions(config, handler))
    );
    return await (await chain)();
  };
}

/** For the SDK's chain. */
export function credentialOptions(config: S3Config, handler: HttpHandler) {
  return {
    ...(config.profile === undefined ? {} : { profile: config.profile }),
    filepath: config.credentialsFile,
    configFilepath: config.configFile,
    clientConfig: { requestHandler: handler },
    logger: SILENT,
  };
}
