/** What words of a command line mean: URLs of stores, sizes, tags, names, targets. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { OptionValueError } from "../../lib/cli/options.ts";
import { backupName, csvTag, integer, size, tag } from "../../lib/cli/values.ts";
import { serverLayout } from "../../lib/layout.ts";
import { RestoreError } from "../../lib/restore/restore_error.ts";
import { parseTarget } from "../../lib/restore/target.ts";
import { memberPath, UnsafeMember } from "../../lib/restore/member_path.ts";
import { parseConnectionString } from "../../providers/azure/connection_string.ts";
import { directoryOfUrl } from "../../providers/file/url.ts";
import { pathOfKey } from "../../providers/file/keys.ts";
import { StoreError } from "../../providers/object_store.ts";
import { openStore, providerOfUrl } from "../../providers/open.ts";
import {
  fuzz,
  NASTY_NAMES,
  outcome,
  outcomeOf,
  SECRET_ENVIRONMENT,
  SECRETS,
  textNear,
} from "./hostile_inputs.ts";

const URLS = [
  "s3://bucket/path/to",
  "s3://bucket",
  "gs://bucket/path",
  "https://console.cloud.google.com/storage/browser/bucket/path",
  "https://account.blob.core.windows.net/container/path/",
  "http://127.0.0.1:10000/devstoreaccount1/container/path",
  "https://backup.example.org/container/path",
  "file:///srv/backups",
  "file://localhost/srv/a%20b",
  `s3://AKIAFUZZ:${SECRETS.url}@bucket/path`,
  `gs://user:${SECRETS.url}@bucket/path`,
  `https://user:${SECRETS.url}@account.blob.core.windows.net/c/p`,
  `https://account.blob.core.windows.net/c/p?sv=2024-01-01&sig=${SECRETS.sas}`,
  `file://user:${SECRETS.url}@localhost/srv`,
];
const URL_WORDS = [
  "//",
  "://",
  "@",
  "?",
  "#",
  "%2f",
  "%2e%2e",
  "%00",
  "..",
  "[::1]",
  ":99999",
  ":0",
  "file:",
  "FILE:///",
  "s3:",
  "\\",
  "xn--",
];

/** What an edit has moved out of the place of a password is a word like others. */
function withPasswordsInPlace(text: string): string {
  const inPlace = new RegExp(`^[a-z][a-z0-9+.-]*://[^/?#@\\s]*:${SECRETS.url}@`, "i");
  return inPlace.test(text) ? text : text.replaceAll(SECRETS.url, "word");
}

fuzz("URLs of stores", {
  runs: 4000,
  input: fc.tuple(
    textNear(URLS, URL_WORDS).map(withPasswordsInPlace),
    fc.constantFrom(
      undefined,
      undefined,
      "aws-s3" as const,
      "azure-blob-storage" as const,
      "google-cloud-storage" as const,
      "local" as const,
    ),
  ),
}, async ([url, provider]) => {
  providerOfUrl(url);
  const directory = outcome(() => directoryOfUrl(url), StoreError);
  if (directory !== undefined) assert.ok(!directory.split("/").includes(".."));
  await outcomeOf(async () => {
    const { store, location } = await openStore(url, {
      provider,
      env: { ...SECRET_ENVIRONMENT, HOME: "/nonexistent" },
      attempts: 1,
    });
    const { description } = store;
    await store.close();
    // A directory may be called so.
    if (store.provider !== "local") assert.ok(!description.includes(SECRETS.url), description);
    assert.ok(!location.prefix.startsWith("/"));
  }, StoreError);
});

fuzz("keys in a directory", {
  runs: 3000,
  input: textNear(["a/b/c", "srv/base/20260115T103000/data.tar"], NASTY_NAMES),
}, (key) => {
  const path = outcome(() => pathOfKey("/root", key), StoreError);
  if (path === undefined) return;
  assert.ok(path.startsWith("/root/"));
  assert.ok(!path.split("/").includes("..") && !path.includes("\0"));
});

fuzz("members' paths", {
  runs: 3000,
  input: textNear(["a/b/c", "./global/pg_control", "base//1/."], NASTY_NAMES),
}, (name) => {
  const path = outcome(() => memberPath(name), UnsafeMember);
  if (path === undefined) return;
  const parts = path.split("/");
  assert.ok(!path.startsWith("/") && !parts.includes("..") && !path.includes("\0"));
  assert.ok(path === "" || !parts.includes("") && !parts.includes("."));
});

fuzz("layouts", {
  runs: 1000,
  input: fc.tuple(textNear(["a/b", ""]), textNear(["srv"]), textNear(["20260115T103000"])),
}, ([prefix, server, id]) => {
  const layout = serverLayout(prefix.replace(/^\/+/, ""), server);
  for (const key of [...layout.annotationSpellings(id, "keep"), layout.backupInfo(id)]) {
    assert.ok(key.includes("/base/"));
  }
});

fuzz("sizes, numbers, tags and names", {
  runs: 4000,
  input: textNear(["4MB", "1.5GiB", "key,value", '"a,b",c', "nightly", "10", "latest"], [
    "KB",
    "YB",
    "aws:",
    ",",
    '"',
    ".",
    "_",
  ]),
}, (word) => {
  const bytes = outcome(() => size(word), OptionValueError);
  if (bytes !== undefined) assert.ok(Number.isSafeInteger(bytes) && bytes >= 1);
  const number = outcome(() => integer("number", 1, 64)(word), OptionValueError);
  if (number !== undefined) assert.ok(Number.isInteger(number) && number >= 1 && number <= 64);
  const pair = outcome(() => tag(word), OptionValueError);
  if (pair !== undefined) assert.ok(pair[0].length >= 1 && pair[0].length <= 128);
  outcome(() => csvTag(word), OptionValueError);
  const name = outcome(() => backupName(word), OptionValueError);
  if (name !== undefined) assert.doesNotMatch(name, /[\r\n\0]/);
});

fuzz("recovery targets", {
  runs: 2000,
  input: fc.record({
    time: fc.option(textNear(["2026-01-15 10:30:00+01", "Jan 15, 2026 10:30"]), { nil: undefined }),
    lsn: fc.option(textNear(["0/1A000028"]), { nil: undefined }),
  }),
}, (words) => {
  outcome(() => parseTarget(words), RestoreError);
});

fuzz("Azure's connection strings", {
  runs: 2000,
  input: textNear([
    `DefaultEndpointsProtocol=https;AccountName=a;AccountKey=${SECRETS.azureKey};EndpointSuffix=core.windows.net`,
    `BlobEndpoint=https://a.blob.core.windows.net/;SharedAccessSignature=sv=2024&sig=${SECRETS.sas}`,
    "UseDevelopmentStorage=true",
  ], [";", "=", "AccountKey", "BlobEndpoint=", "http://", "@", "?"]),
}, (text) => {
  outcome(() => parseConnectionString(text), StoreError);
});
