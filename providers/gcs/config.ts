/** What the environment says about the endpoint, read as Google's Python library (Barman's) reads it. */
import { requestsCaBundle } from "../certificates.ts";
import { StoreError } from "../object_store.ts";
import type { StoreOptions } from "../open.ts";
import { withoutSecrets } from "../url_in_messages.ts";

export interface GcsConfig {
  /** Without a trailing slash. */
  readonly endpoint: string;
  /** Is it Google's own? What another one supports is not known beforehand. */
  readonly isGoogle: boolean;
  /** Named by STORAGE_EMULATOR_HOST: it gets no credentials, there are none to check. */
  readonly isEmulator: boolean;
  /** PEM text of the authorities to trust instead of the runtime's. */
  readonly ca: string | undefined;
  /** The project that a new bucket shall belong to, when the environment names one. */
  readonly project: string | undefined;
}

/**
 * `--endpoint-url` is not looked at: it is S3's, and Barman ignores it here. STORAGE_EMULATOR_HOST
 * names an emulator, API_ENDPOINT_OVERRIDE another address of the real service.
 *
 * @throws {StoreError} kind `invalid` for a setting that can't be right.
 */
export async function readGcsConfig({ env }: Pick<StoreOptions, "env">): Promise<GcsConfig> {
  const emulator = env["STORAGE_EMULATOR_HOST"]?.trim();
  const override = env["API_ENDPOINT_OVERRIDE"]?.trim();
  const universe = env["GOOGLE_CLOUD_UNIVERSE_DOMAIN"]?.trim();
  const endpoint = emulator
    // Google's libraries do not agree on whether there is a scheme in it.
    ? origin("STORAGE_EMULATOR_HOST", emulator.includes("://") ? emulator : `http://${emulator}`)
    : override
    ? origin("API_ENDPOINT_OVERRIDE", override)
    : `https://storage.${universe || "googleapis.com"}`;
  return {
    endpoint,
    isGoogle: !emulator && (!override || /(^|\.)googleapis\.com$/.test(new URL(endpoint).hostname)),
    isEmulator: Boolean(emulator),
    ca: await requestsCaBundle(env),
    project: env["GOOGLE_CLOUD_PROJECT"]?.trim() || env["GCLOUD_PROJECT"]?.trim() || undefined,
  };
}

function origin(name: string, text: string): string {
  if (!/^https?:\/\/[^/]/i.test(text) || !URL.canParse(text)) {
    throw new StoreError(
      "invalid",
      `Cannot use ${withoutSecrets(text)} (${name}): write http://HOST:PORT or https://HOST`,
    );
  }
  const url = new URL(text);
  return url.origin + url.pathname.replace(/\/+$/, "");
}
