/** list, show, keep and delete on a real S3 server, and what they do when the store fails half-way. */
import assert from "node:assert/strict";
import {
  CreateBucketCommand,
  PutObjectLegalHoldCommand,
  PutObjectRetentionCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import type { Command } from "../../../lib/cli/command.ts";
import { command as deleteCommand } from "../../../lib/commands/backup_delete.ts";
import { command as keep } from "../../../lib/commands/backup_keep.ts";
import { command as list } from "../../../lib/commands/backup_list.ts";
import { command as show } from "../../../lib/commands/backup_show.ts";
import { serverLayout } from "../../../lib/layout.ts";
import type { ObjectStore } from "../../../providers/object_store.ts";
import { openS3Store } from "../../../providers/s3/store.ts";
import { type S3ForTests, startS3ForTests } from "../../../scripts/servers/s3_for_tests.ts";
import { PLAIN, withLines } from "../backup/fixtures.ts";
import { type Interceptor, startInterceptor } from "./s3_interceptor.ts";
import { type CommandResult, runIn } from "./wal_command_run.ts";

const A = "20260110T000000";
const B = "20260111T000000";
const C = "20260112T000000";

const layout = serverLayout("pre fix/日", "srv");

interface Subject {
  readonly server: S3ForTests;
  readonly proxy: Interceptor;
  /** What is in the bucket, seen past the proxy. */
  readonly store: ObjectStore;
  readonly bucket: string;
  put(key: string, text: string): Promise<void>;
  addBackup(id: string, lines?: string): Promise<void>;
  addWal(...names: string[]): Promise<void>;
  keys(): Promise<string[]>;
  /** Run a command through the proxy. */
  run(command: Command, ...words: string[]): Promise<CommandResult>;
}

const STEPS: ReadonlyArray<readonly [string, (subject: Subject) => Promise<void>]> = [
  ["list, show and keep tell the same as on any store", async (subject) => {
    const { addBackup, run, put } = subject;
    await addBackup(A, "backup_name=nightly");
    await addBackup(B, "status=FAILED\nend_time=None");
    await put(layout.backupInfo(C), "garbage");
    const listed = await run(list, "--format", "json");
    assert.equal(listed.code, 0);
    assert.deepEqual(
      JSON.parse(listed.stdout).backups_list.map((
        { backup_id, status }: Record<string, unknown>,
      ) => [backup_id, status]),
      [[A, "DONE"], [B, "FAILED"]],
    );
    assert.match(listed.log.join("\n"), /^WARNING: Backup 20260112T000000 is left out/m);
    assert.equal((await run(keep, "nightly", "--target", "full")).code, 0);
    assert.equal((await run(keep, A, "--status")).stdout, "Keep: full\n");
    assert.match((await run(list)).stdout, /KEEP:FULL +nightly/);
    assert.equal(
      JSON.parse((await run(show, "nightly", "--format=json")).stdout).cloud.status,
      "DONE",
    );
    assert.equal((await run(show, "20990101T000000")).code, 1);
    assert.equal((await run(deleteCommand, "-b", A)).code, 1);
    assert.equal((await run(keep, A, "--release")).code, 0);
    assert.equal((await run(keep, A, "--release")).code, 0);
    assert.equal((await run(keep, A, "--status")).stdout, "Keep: nokeep\n");
  }],

  ["delete by policy: whole folders, the rest by name, nothing else", async (subject) => {
    const { addBackup, addWal, run, keys, proxy } = subject;
    const wal = (log: number, segment: number) => `00000001${hex(log)}${hex(segment)}`;
    await addBackup(A, `begin_wal=${wal(0, 2)}\nend_wal=${wal(0, 2)}`);
    await addBackup(B, `begin_wal=${wal(2, 5)}\nend_wal=${wal(2, 5)}`);
    await addBackup(C, `begin_wal=${wal(3, 1)}\nend_wal=${wal(3, 1)}`);
    await addWal(wal(0, 2), `${wal(1, 0)}.gz`, wal(2, 4), wal(2, 5), wal(3, 1), "00000002.history");
    const before = await keys();
    const dry = await run(deleteCommand, "--dry-run", "--retention-policy", "REDUNDANCY 2");
    const skip = (what: string) => `Skipping deletion of ${what} due to --dry-run option\n`;
    const folder = (log: number) =>
      skip(`all objects under prefix ${layout.wals}00000001${hex(log)}/`);
    assert.deepEqual([dry.code, dry.stdout], [
      0,
      skip(`objects ['${layout.backup(A)}data.tar', '${layout.backupInfo(A)}']`) + folder(0) +
      folder(1) + skip(`objects ['${layout.wal(wal(2, 4))}']`),
    ]);
    const asJson = await run(deleteCommand, "--dry-run", "--format=json", "-r", "REDUNDANCY 2");
    assert.deepEqual(JSON.parse(asJson.stdout).deletions, [{
      backup_id: A,
      snapshots_provider: null,
      objects: [`${layout.backup(A)}data.tar`, layout.backupInfo(A)],
      wal_prefixes: [0, 1].map((log) => `${layout.wals}00000001${hex(log)}/`),
      wals: [layout.wal(wal(2, 4))],
    }]);
    assert.deepEqual(await keys(), before);
    proxy.seen.length = 0;
    quiet(await run(deleteCommand, "--retention", "REDUNDANCY 2"));
    const gone = [
      ...[`${layout.backup(A)}data.tar`, layout.backupInfo(A)],
      ...[wal(0, 2), `${wal(1, 0)}.gz`, wal(2, 4)].map((name) => layout.wal(name)),
    ];
    assert.deepEqual(await keys(), before.filter((key) => !gone.includes(key)));
    // May it be deleted; archives, backup.info, marks, WAL of whole folders, other WAL.
    assert.equal(proxy.seen.filter((request) => request === "POST ?delete").length, 6);
    quiet(await run(deleteCommand, "--retention", "REDUNDANCY 2"));
  }],

  ["a store that wants Content-MD5 gets single deletions", async (subject) => {
    const { addBackup, addWal, run, keys, proxy } = subject;
    await addBackup(A);
    await addBackup(B);
    await addWal("000000010000000000000001", "00000001000000000000000A.gz");
    for (const message of ["MissingContentMD5", "InvalidRequest"]) {
      const id = message === "InvalidRequest" ? B : A;
      proxy.seen.length = 0;
      proxy.intercept = ({ query }) =>
        query.has("delete")
          ? {
            status: 400,
            code: message,
            ...(message === "InvalidRequest"
              ? {
                body:
                  "<Error><Code>InvalidRequest</Code><Message>Missing required header for this request: Content-MD5</Message></Error>",
              }
              : {}),
          }
          : "pass";
      assert.equal((await run(deleteCommand, "-b", id)).code, 0, message);
      assert.ok(!(await keys()).some((key) => key.includes(id)));
      const single = proxy.seen.filter((request) => request.startsWith("DELETE "));
      assert.ok(single.includes(`DELETE ${layout.backupInfo(id)}`));
      assert.ok(proxy.seen.includes("POST ?delete"));
    }
    assert.deepEqual(await keys(), []);
  }],

  ["a refused deletion is told, and the backup stays listed", async (subject) => {
    const { addBackup, run, keys, proxy } = subject;
    await addBackup(A);
    await addBackup(B);
    const before = await keys();
    proxy.intercept = ({ method, query }) =>
      query.has("delete") || method === "DELETE" ? { status: 403, code: "AccessDenied" } : "pass";
    const refused = await run(deleteCommand, "-b", A);
    assert.equal(refused.code, 1);
    assert.match(refused.log.join("\n"), /Cannot delete .*data\.tar of backup .*access denied/i);
    assert.deepEqual(await keys(), before);
  }],

  ["no listing at all rather than a short one", async (subject) => {
    const { addBackup, run, keys, proxy, put } = subject;
    await addBackup(A);
    await addBackup(B);
    await addBackup(C);
    await put(layout.annotation(A, "keep"), "full");
    const before = await keys();
    const answers = [
      { status: 500, code: "InternalError" },
      { status: 503, code: "SlowDown" },
      { status: 403, code: "AccessDenied" },
      { status: 400, code: "InvalidRequest" },
      "cut",
    ] as const;
    for (const answer of answers) {
      const name = answer === "cut" ? "cut" : answer.code;
      for (const failing of [layout.backupInfo(B), layout.annotation(A, "keep"), ""]) {
        // An empty key is the listing itself.
        proxy.intercept = ({ method, key, query }) =>
          method === "GET" && key === failing && (key !== "" || query.has("list-type"))
            ? answer
            : "pass";
        const words = failing.endsWith("/keep") ? [[]] : [[], ["--format", "json"]];
        for (const format of words) {
          const listed = await run(list, ...format);
          assert.deepEqual([listed.code, listed.stdout], [4, ""], `${name} ${failing} ${format}`);
          assert.equal(listed.log.filter((line) => line.startsWith("ERROR")).length, 1);
        }
        for (const words of [["-b", A], ["-r", "REDUNDANCY 1"]]) {
          const { code } = await run(deleteCommand, ...words);
          assert.ok(code === 1 || code === 4, `${name} ${failing}: ${code}`);
        }
        assert.deepEqual(await keys(), before);
      }
    }
    // What lies in the object itself passes no sooner than the object goes: in an archive class, or malformed.
    proxy.intercept = ({ method, key }) =>
      method === "GET" && key === layout.backupInfo(B)
        ? { status: 403, code: "InvalidObjectState" }
        : "pass";
    await put(layout.backupInfo(C), "no such notation");
    const listed = await run(list, "--format", "json");
    assert.equal(listed.code, 0);
    assert.deepEqual(
      JSON.parse(listed.stdout).backups_list.map((backup: Record<string, unknown>) =>
        backup["backup_id"]
      ),
      [A],
    );
    assert.equal(listed.log.filter((line) => line.startsWith("WARNING")).length, 2);
    const refused = await run(deleteCommand, "-r", "REDUNDANCY 0");
    assert.deepEqual([refused.code, await keys()], [1, before]);
  }],

  ["a listing whose second page fails is no listing", async (subject) => {
    const { run, proxy } = subject;
    const page = (ids: readonly string[], more: string) =>
      `<?xml version="1.0"?><ListBucketResult><IsTruncated>${more !== ""}</IsTruncated>${
        ids.map((id) =>
          `<CommonPrefixes><Prefix>${layout.backup(id)}</Prefix></CommonPrefixes>` +
          `<Contents><Key>${layout.backupInfo(id)}</Key><Size>10</Size></Contents>`
        ).join("")
      }${more === "" ? "" : `<NextContinuationToken>${more}</NextContinuationToken>`}`;
    const end = "</ListBucketResult>";
    const seconds = [
      "cut",
      { status: 500, code: "InternalError" },
      { status: 200, body: page([B], "") },
      { status: 200, body: page([B], "again") + end },
      { status: 200, body: page([B], "").replace("false", "true") + end },
      { status: 200, body: "<Error><Code>InternalError</Code><Message>late</Message></Error>" },
      { status: 200, body: "" },
    ] as const;
    for (const second of seconds) {
      proxy.intercept = ({ method, key, query }) => {
        if (query.has("list-type")) {
          return query.has("continuation-token") || query.has("start-after")
            ? second
            : { status: 200, body: page([A], "again") + end };
        }
        if (method === "GET" && key.endsWith("backup.info")) return { status: 200, body: PLAIN };
        return { status: 404, code: "NoSuchKey" };
      };
      for (const words of [[], ["--format", "json"]]) {
        const listed = await run(list, ...words);
        assert.deepEqual([listed.code, listed.stdout], [4, ""], JSON.stringify(second));
      }
      assert.equal((await run(deleteCommand, "-r", "REDUNDANCY 0")).code, 4);
      assert.ok(!proxy.seen.some((request) => request === "POST ?delete"));
    }
  }],
];

Deno.test("the catalogue on S3", async (test) => {
  const server = await startS3ForTests();
  if (server === null) return;
  try {
    for (const [name, step] of STEPS) {
      await test.step(name, async () => await withSubject(server, await server.newBucket(), step));
    }
    if (server.rgw !== undefined) await test.step("object lock", () => objectLock(server));
  } finally {
    await server.stop();
  }
});

async function objectLock(server: S3ForTests): Promise<void> {
  const client = new S3Client({
    endpoint: server.endpoint,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: {
      accessKeyId: server.env["AWS_ACCESS_KEY_ID"] ?? "",
      secretAccessKey: server.env["AWS_SECRET_ACCESS_KEY"] ?? "",
    },
  });
  const Bucket = `barman-cloud-test-${crypto.randomUUID()}`;
  try {
    await client.send(new CreateBucketCommand({ Bucket, ObjectLockEnabledForBucket: true }));
    await withSubject(server, Bucket, async ({ addBackup, run, keys, proxy }) => {
      for (const id of [A, B, C]) await addBackup(id);
      const lock = (Key: string, Mode: "GOVERNANCE" | "COMPLIANCE", milliseconds: number) =>
        client.send(
          new PutObjectRetentionCommand({
            Bucket,
            Key,
            Retention: { Mode, RetainUntilDate: new Date(Date.now() + milliseconds) },
          }),
        );
      await lock(`${layout.backup(A)}data.tar`, "GOVERNANCE", 3_600_000);
      const hold = (Status: "ON" | "OFF") =>
        client.send(
          new PutObjectLegalHoldCommand({
            Bucket,
            Key: layout.backupInfo(B),
            LegalHold: { Status },
          }),
        );
      await hold("ON");
      // Over before it is looked at.
      await lock(`${layout.backup(C)}data.tar`, "COMPLIANCE", 1500);
      const over = Date.now() + 1500;
      const before = await keys();
      const check = "--check-object-lock";
      const told = async (words: readonly string[], code: number, message: RegExp) => {
        const result = await run(deleteCommand, ...words);
        assert.equal(result.code, code, result.log.join("\n"));
        assert.match(result.log.join("\n"), message);
      };
      await told(
        ["-b", A, check],
        1,
        /backup 20260110T000000: \S.*data\.tar is locked until 20\d\d-/,
      );
      await told(["-b", A, check, "--batch-size", "1"], 1, /data\.tar is locked until/);
      await told(["-r", "REDUNDANCY 1", check], 1, /data\.tar is locked until/);
      await told(
        ["-b", B, check],
        1,
        /backup 20260111T000000: \S.*backup\.info is under legal hold/,
      );
      assert.deepEqual(await keys(), before);
      assert.ok(!proxy.seen.some((request) => request === "POST ?delete"));
      proxy.intercept = ({ method }) =>
        method === "HEAD" ? { status: 403, code: "AccessDenied" } : "pass";
      await told(["-b", C, check], 1, /the lock of \S.* can't be read/);
      proxy.intercept = () => "pass";
      assert.deepEqual(await keys(), before);

      await hold("OFF");
      quiet(await run(deleteCommand, "-b", B, check));
      while (Date.now() <= over + 100) await new Promise((passed) => setTimeout(passed, 100));
      quiet(await run(deleteCommand, "-b", C, check));
      // Without the check S3 hides a locked object behind a delete marker and says nothing.
      quiet(await run(deleteCommand, "-b", A));
      assert.deepEqual(await keys(), []);
    });
  } finally {
    client.destroy();
  }
}

async function withSubject(
  server: S3ForTests,
  bucket: string,
  use: (subject: Subject) => Promise<void>,
): Promise<void> {
  await using proxy = await startInterceptor(server.endpoint);
  // One attempt: what passes by waiting is the wrapper's business.
  const env = { ...server.env, AWS_MAX_ATTEMPTS: "1" };
  const { store } = await openS3Store(`s3://${bucket}`, { env, endpointUrl: server.endpoint });
  const put = (key: string, text: string) => store.put(key, new TextEncoder().encode(text));
  const common = ["--cloud-provider", "aws-s3", "--endpoint-url", proxy.endpoint];
  const keys = async () => {
    const found: string[] = [];
    for await (const entry of store.list("")) if (entry.kind === "object") found.push(entry.key);
    return found.sort();
  };
  try {
    await use({
      server,
      proxy,
      store,
      bucket,
      put,
      keys,
      async addBackup(id, lines = "") {
        await put(layout.backupInfo(id), withLines(PLAIN, lines));
        await put(layout.archive(id, "data", 0, "tar"), "data");
      },
      async addWal(...names) {
        for (const name of names) await put(layout.wal(name), "");
      },
      run: (command, ...words) =>
        runIn(command, [...common, `s3://${bucket}/pre fix/日`, "srv", ...words], { env }),
    });
  } finally {
    const left = await keys();
    if (left.length > 0) await store.deleteMany(left);
    await store.close();
  }
}

/** Success, and nothing that anybody sees without -v. */
function quiet({ code, stdout, stderr, log }: CommandResult): void {
  const seen = log.filter((line) => !line.startsWith("INFO"));
  assert.deepEqual([code, stdout, stderr, seen], [0, "", "", []]);
}

function hex(number: number): string {
  return number.toString(16).toUpperCase().padStart(8, "0");
}
