/** Options and positionals that several commands share, each declared once. */
import { append, choice, count, flag, positional, value, values } from "./options.ts";
import { PROVIDER_NAMES, type Tags } from "../../providers/object_store.ts";
import type { StoreOptions } from "../../providers/open.ts";
import { csvTag, integer, tag } from "./values.ts";

const URL_FORMS =
  "s3://BUCKET/PATH, gs://BUCKET/PATH, https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH or file:///DIR";

export const DESTINATION = [
  positional("destinationUrl", `where backups and WAL are stored: ${URL_FORMS}`),
  positional("serverName", "name of the server: the folder below PATH that holds all it owns"),
] as const;

export const SOURCE = [
  positional("sourceUrl", `where backups and WAL are stored: ${URL_FORMS}`),
  positional("serverName", "name of the server: the folder below PATH that holds all it owns"),
] as const;

export const COMMON = [
  count("verbose", ["-v", "--verbose"], "tell more (-vv: even more)", { exclusive: "verbosity" }),
  count("quiet", ["-q", "--quiet"], "tell less (-qq: even less)", { exclusive: "verbosity" }),
  flag("test", ["-t", "--test"], "test the connection to the store, then exit"),
  choice(
    "cloudProvider",
    ["--cloud-provider"],
    PROVIDER_NAMES,
    "kind of the store (default: told by the URL)",
  ),
  value("endpointUrl", ["--endpoint-url"], "endpoint of an S3-compatible store", { section: "s3" }),
  value("awsProfile", ["-P", "--aws-profile"], "profile in the AWS configuration files", {
    section: "s3",
  }),
  value("awsProfile", ["--profile"], "old spelling of --aws-profile", {
    section: "s3",
    metavar: "AWS_PROFILE",
  }),
  value("readTimeout", ["--read-timeout"], "seconds to wait for an answer (default: 60)", {
    section: "s3",
    parse: integer("number of seconds", 1),
  }),
  choice(
    "addressingStyle",
    ["--addressing-style"],
    ["auto", "virtual", "path"],
    "where requests name the bucket: in the host name (virtual) or in the path " +
      "(default: path with --endpoint-url, else as AWS recommends)",
    { section: "s3" },
  ),
  value(
    "sseCustomerKey",
    ["--sse-customer-key"],
    "file:// URI of a file with the base64 form of a key of 256 bits that S3 is to encrypt and decrypt objects with " +
      "(SSE-C); excludes --encryption",
    { section: "s3", metavar: "FILE_URI" },
  ),
  choice(
    "azureCredential",
    ["--azure-credential", "--credential", "--default"],
    ["azure-cli", "managed-identity", "default"],
    "credential to use instead of AZURE_STORAGE_* variables",
    { section: "azure" },
  ),
] as const;

/** What COMMON results in, for functions that take the options of any command. */
export interface CommonValues {
  readonly verbose: number;
  readonly quiet: number;
  readonly test: boolean;
  readonly cloudProvider: StoreOptions["provider"];
  readonly endpointUrl: string | undefined;
  readonly awsProfile: string | undefined;
  readonly readTimeout: number | undefined;
  readonly addressingStyle: StoreOptions["addressingStyle"];
  readonly azureCredential: StoreOptions["azureCredential"];
  readonly sseCustomerKey: string | undefined;
}

/** Encryption of what is written (backup and wal-archive). */
export const WRITE_ENCRYPTION = [
  choice(
    "encryption",
    ["-e", "--encryption"],
    ["AES256", "aws:kms"],
    "server-side encryption of what is uploaded",
    { section: "s3" },
  ),
  value("sseKmsKeyId", ["--sse-kms-key-id"], "id or ARN of the KMS key, with -e aws:kms", {
    section: "s3",
  }),
  value("encryptionScope", ["--encryption-scope"], "encryption scope of what is uploaded", {
    section: "azure",
  }),
  value("kmsKeyName", ["--kms-key-name"], "name of the KMS key of what is uploaded", {
    section: "gcs",
  }),
] as const;

/** Tags on what is written (backup and wal-archive). */
export const WRITE_TAGS = [
  append("tag", ["--tag"], "tag on each uploaded object: KEY,VALUE (repeatable)", {
    exclusive: "tags",
    parse: tag,
    metavar: "KEY,VALUE",
  }),
  values("tags", ["--tags"], "old form of --tag: all following words are KEY,VALUE", {
    exclusive: "tags",
    parse: csvTag,
    metavar: "KEY,VALUE",
  }),
] as const;

/** The tags to use: `--tags` or `--tag`, whichever was given. */
export function tagsOf(
  options: { readonly tag: Tags | undefined; readonly tags: Tags | undefined },
): Tags | undefined {
  return options.tags ?? options.tag;
}

export const OUTPUT_FORMAT = [
  value(
    "format",
    ["--format"],
    "how to print: console (default) or json; any other word also means json",
  ),
] as const;

/** For commands that print no JSON with Barman. */
export const OUR_OUTPUT_FORMAT = OUTPUT_FORMAT.map((spec) => ({ ...spec, ours: true }));

/** Any word but `console` means JSON, as with Barman. */
export function formatOf(values: { readonly format: string | undefined }): "console" | "json" {
  return (values.format ?? "console") === "console" ? "console" : "json";
}
