/**
 * The permissions that docs/providers.md names are enough: each command runs as somebody who is allowed just those, by a
 * bucket policy of Ceph's gateway or by a SAS token at Azurite.
 */
import assert from "node:assert/strict";
import { chmod, chown, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PutBucketPolicyCommand, S3Client } from "@aws-sdk/client-s3";
import {
  ContainerSASPermissions,
  generateBlobSASQueryParameters,
  StorageSharedKeyCredential,
} from "@azure/storage-blob";
import { startAzuriteForTests } from "../../scripts/servers/azurite.ts";
import {
  reachableByServer,
  serverUser,
  startPostgres,
} from "../../scripts/servers/embedded_postgres.ts";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { archiveCurrentSegment } from "../../scripts/servers/write_load.ts";
import { executablePath, runProgram } from "./executable.ts";

const s3 = await startS3ForTests();
const azure = await startAzuriteForTests();
Deno.test.afterAll(async () => {
  await s3?.stop();
  await azure?.stop();
});

interface Subject {
  readonly url: string;
  readonly options: readonly string[];
  /** Of somebody who may do everything: the server's archiver. */
  readonly owner: Readonly<Record<string, string>>;
  /** The environment of somebody who is allowed just this; words of the documentation. */
  as(permissions: readonly string[]): Promise<Record<string, string>>;
}

Deno.test({
  name: "the permissions that are documented for S3 are enough",
  ignore: s3?.rgw === undefined,
  async fn() {
    if (s3?.rgw === undefined) throw new Error("Without Ceph's gateway this is ignored");
    const { stranger } = s3.rgw;
    const bucket = await s3.newBucket();
    const owner = new S3Client({
      endpoint: s3.endpoint,
      region: "us-east-1",
      forcePathStyle: true,
      credentials: {
        accessKeyId: s3.env["AWS_ACCESS_KEY_ID"] ?? "",
        secretAccessKey: s3.env["AWS_SECRET_ACCESS_KEY"] ?? "",
      },
    });
    try {
      await story(await documented("Amazon S3", /`(s3:\w+)`/g), {
        url: `s3://${bucket}/pg`,
        options: ["--endpoint-url", s3.endpoint],
        owner: s3.env,
        async as(permissions) {
          const statement = {
            Effect: "Allow",
            Principal: "*",
            Action: permissions,
            Resource: [`arn:aws:s3:::${bucket}`, `arn:aws:s3:::${bucket}/*`],
          };
          const Policy = JSON.stringify({ Version: "2012-10-17", Statement: [statement] });
          await owner.send(new PutBucketPolicyCommand({ Bucket: bucket, Policy }));
          return {
            ...s3.env,
            AWS_ACCESS_KEY_ID: stranger.accessKeyId,
            AWS_SECRET_ACCESS_KEY: stranger.secretAccessKey,
          };
        },
        // At Ceph's gateway who has written an object may read it too.
      }, { nothing: ["s3:ListBucketVersions"], onlyWriting: null });
    } finally {
      owner.destroy();
    }
  },
});

Deno.test({
  name: "the permissions that are documented for Azure are enough",
  ignore: azure?.azurite === undefined,
  async fn() {
    if (azure?.azurite === undefined) throw new Error("Without Azurite this is ignored");
    const { account, key } = azure.azurite;
    const containerName = await azure.newContainer();
    const names = /\b(read|add|create|write|list|delete|tag)\b/g;
    await story(await documented("Azure Blob Storage", names), {
      url: `${azure.url}/${containerName}/pg`,
      options: ["--cloud-provider", "azure-blob-storage"],
      owner: azure.env,
      as(permissions) {
        const allowed = new ContainerSASPermissions();
        for (const name of permissions) Object.assign(allowed, { [name]: true });
        const token = generateBlobSASQueryParameters(
          { containerName, permissions: allowed, expiresOn: new Date(Date.now() + 3_600_000) },
          new StorageSharedKeyCredential(account, key),
        );
        const words = `BlobEndpoint=${azure.url};SharedAccessSignature=${token}`;
        return Promise.resolve({ AZURE_STORAGE_CONNECTION_STRING: words });
      },
    }, { nothing: ["tag"], onlyWriting: ["create", "write"] });
  },
});

async function story(
  permissions: ReadonlyMap<string, readonly string[]>,
  { url, options, owner, as }: Subject,
  { nothing, onlyWriting }: {
    readonly nothing: readonly string[];
    readonly onlyWriting: readonly string[] | null;
  },
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "least-privilege-"));
  const user = serverUser();
  await chmod(directory, 0o755);
  if (user !== undefined) await chown(directory, user.uid, user.gid);
  const executable = await reachableByServer(await executablePath());
  const run = (
    env: Record<string, string>,
    command: string,
    words: readonly string[],
    positionals: readonly string[],
    name = "main",
  ) =>
    runProgram(executable, [command, ...options, ...words, url, name, ...positionals], {
      ...(user ?? {}),
      cwd: directory,
      env: { AWS_MAX_ATTEMPTS: "1", ...env },
    });
  /** The command with what the documentation says for it. */
  const ok = async (
    command: string,
    words: string[] = [],
    positionals: string[] = [],
    name = "main",
  ) => {
    const allowed = permissions.get(command) ?? [];
    assert.ok(allowed.length > 0, `${command} is not documented`);
    const { code, stderr } = await run(await as(allowed), command, words, positionals, name);
    assert.deepEqual([code, stderr], [0, ""], `${command}, allowed ${allowed.join(", ")}`);
  };
  try {
    const variables = Object.entries(owner).filter(([name]) => !name.startsWith("TEST_"));
    const archiver = ["env", ...variables.map(([name, value]) => `${name}='${value}'`), executable];
    await using server = await startPostgres({
      settings: {
        archive_mode: "on",
        archive_command: [...archiver, "wal-archive", ...options, url, "main", "%p"].join(" "),
      },
    });
    await ok("check-wal-archive");
    const refused = await run(await as(nothing), "backup-list", [], []);
    assert.equal(refused.code, 4, "nothing is allowed yet");
    const name = await archiveCurrentSegment(server);
    const segment = join(server.dataDirectory, "pg_wal", name);
    for (const _ of ["first", "again, as after a crash of the server"]) {
      await ok("wal-archive", ["--gzip", "--tag", "a,b"], [segment], "other");
    }
    const backup = ["--immediate-checkpoint", "-d", server.conninfo(), "--tag", "a,b"];
    await ok("backup", [...backup, "--name", "one"]);
    await ok("backup", [...backup, "--name", "two"]);
    await ok("backup-list");
    await ok("backup-show", [], ["one"]);
    await ok("wal-restore", [], [name, join(directory, "wal")]);
    await ok("restore", [], ["one", join(directory, "data")]);
    await ok("backup-keep", ["--target", "full"], ["one"]);
    await ok("backup-keep", ["--status"], ["one"]);
    await ok("backup-keep", ["--release"], ["one"]);
    await ok("backup-delete", ["--backup-id", "one"]);

    if (onlyWriting !== null) {
      const writer = await as(onlyWriting);
      const next = join(server.dataDirectory, "pg_wal", await archiveCurrentSegment(server));
      const first = await run(writer, "wal-archive", [], [next], "third");
      assert.equal(first.code, 0, first.stderr);
      assert.match(
        first.stderr,
        /WARNING: Cannot check whether the archive belongs to this cluster/,
      );
      const second = await run(writer, "wal-archive", [], [next], "third");
      assert.equal(second.code, 4);
      assert.match(second.stderr, /can't be told without permission to read/);
      assert.equal((await run(writer, "wal-archive", ["--overwrite"], [next], "third")).code, 0);
    }

    const reader = await as(permissions.get("restore") ?? []);
    for (
      const [command, words, positionals] of [
        ["wal-archive", ["--overwrite"], [segment]],
        ["backup-keep", ["--target", "full"], ["two"]],
        ["backup-delete", ["--backup-id", "two"], []],
      ] as const
    ) {
      const { code } = await run(reader, command, words, positionals);
      assert.ok(code === 1 || code === 4, `${command} ended with ${code}`);
    }
    await ok("backup-show", [], ["two"]);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Command → permissions, from a section's table; `archiving's` and `restore's` stand for those of their rows. */
async function documented(
  section: string,
  words: RegExp,
): Promise<ReadonlyMap<string, readonly string[]>> {
  const text = await readFile(new URL("../../docs/providers.md", import.meta.url), "utf8");
  const [, body = ""] = new RegExp(`\\n## ${section}\\n([^]*?)\\n## `).exec(text) ?? [];
  const found = new Map<string, readonly string[]>();
  for (const line of body.split("\n")) {
    const [, commands = "", needs = ""] = /^\| (.*?) +\| (.*?) +\|$/.exec(line) ?? [];
    const names = [...needs.matchAll(words)].map(([all, word = all]) => word);
    if (needs.includes("archiving's")) names.push(...found.get("wal-archive") ?? []);
    if (needs.includes("restore's")) names.push(...found.get("restore") ?? []);
    for (const [, command = ""] of commands.matchAll(/`([a-z-]+)`/g)) found.set(command, names);
  }
  return found;
}
