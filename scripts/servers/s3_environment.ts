/** What processes under test get of the environment for an S3 server. */

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
