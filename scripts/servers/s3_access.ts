/** How tests get at an S3 server that is theirs: its program, the environment for processes, and buckets. */
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { skipUnless } from "../../tests/skips.ts";
import type { GoProgram } from "./go_program.ts";

export interface Keys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** The developer's configuration files and the cloud's metadata service stay out of the tests. */
export function environmentOf(keys: Keys): Record<string, string> {
  return {
    AWS_ACCESS_KEY_ID: keys.accessKeyId,
    AWS_SECRET_ACCESS_KEY: keys.secretAccessKey,
    AWS_CONFIG_FILE: "/dev/null",
    AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
    AWS_EC2_METADATA_DISABLED: "true",
  };
}

/** To be destroyed. */
export function clientOf(endpoint: string, credentials: Keys): S3Client {
  return new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, credentials });
}

/** @returns the name of a new bucket */
export async function makeBucket(client: S3Client): Promise<string> {
  const Bucket = `barman-cloud-test-${crypto.randomUUID()}`;
  await client.send(new CreateBucketCommand({ Bucket }));
  return Bucket;
}

/** A throwaway server. */
export interface S3Server extends Keys {
  /** `http://127.0.0.1:PORT` */
  readonly endpoint: string;
  /** The environment for stores and processes under test, with nothing of the developer's own. */
  readonly env: Readonly<Record<string, string>>;
  /** The name of an empty bucket. */
  newBucket(): Promise<string>;
  /** Ends the server and removes what it stored. */
  stop(): Promise<void>;
}

/** @param stop ends the server */
export function s3Server(endpoint: string, keys: Keys, stop: () => Promise<void>): S3Server {
  const client = clientOf(endpoint, keys);
  return {
    endpoint,
    ...keys,
    env: environmentOf(keys),
    newBucket: () => makeBucket(client),
    async stop() {
      client.destroy();
      await stop();
    },
  };
}

/**
 * A server's program, for tests that do without where there is none.
 * @param variable holds why it can't be had, when whoever started this process has tried already: a failing build takes
 * its time
 * @returns the path of the program; null when it can't be had: what would enable it has then been said
 */
export async function s3ProgramForTests(
  name: string,
  variable: string,
  ensure: (tell: (text: string) => void) => Promise<GoProgram>,
): Promise<string | null> {
  const tried = Deno.env.get(variable);
  const found = tried ? { missing: tried } : await ensure((text) => console.log(text));
  if (!("missing" in found)) return found.path;
  skipUnless(
    false,
    `Tests against ${name} (${found.missing})`,
    "install Go with access to its module proxy",
  );
  return null;
}
