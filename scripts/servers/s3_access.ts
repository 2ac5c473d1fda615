/** How tests get at an S3 server that is theirs: the environment for processes, and buckets. */
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";

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
