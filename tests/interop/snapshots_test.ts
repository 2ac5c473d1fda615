/** Backups made of EBS snapshots by ours and by Barman, on the same EC2 and the same PostgreSQL. */
import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Ec2Fake, startEc2Fake } from "../../scripts/servers/ec2_fake.ts";
import { startPostgres, type TestPostgres } from "../../scripts/servers/embedded_postgres.ts";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { type Findmnt, installFindmnt, type MountTable } from "../e2e/findmnt.ts";
import { type Bucket, newBucket } from "./bucket.ts";
import { type CommandName, NEWEST, OURS, skipWithout, type Tool } from "./commands.ts";
import { infoText } from "./states.ts";

const s3 = await startS3ForTests();
if (s3 !== null) Deno.test.afterAll(() => s3.stop());
const ignore = skipWithout(NEWEST, "newest") || s3 === null;

interface Scene {
  readonly fake: Ec2Fake;
  readonly bucket: Bucket;
  readonly server: TestPostgres;
  readonly findmnt: Findmnt;
  readonly mounts: MountTable;
  readonly directory: string;
  run(tool: Tool, command: CommandName, words: readonly string[]): ReturnType<Tool["run"]>;
}

async function withScene(body: (scene: Scene, tools: readonly Tool[]) => Promise<void>) {
  if (s3 === null || NEWEST === null) throw new Error("Without servers this is ignored");
  await using fake = await startEc2Fake();
  await using bucket = await newBucket(s3);
  await using server = await startPostgres({
    major: 17,
    settings: { archive_mode: "on", archive_command: "true" },
    tablespaces: { fast: "fast" },
  });
  const directory = await mkdtemp(join(tmpdir(), "interop-snapshots-"));
  await chmod(directory, 0o755);
  const programs = join(directory, "bin");
  await mkdir(programs);
  const findmnt = installFindmnt(programs);
  try {
    await body({
      fake,
      bucket,
      server,
      findmnt,
      mounts: new Map(),
      directory,
      run: (tool, command, words) =>
        tool.run(command, [...bucket.words, ...words], {
          env: { ...bucket.env, AWS_ENDPOINT_URL_EC2: fake.endpoint, PATH: findmnt.path },
        }),
    }, [OURS, NEWEST]);
  } finally {
    await rm(directory, { recursive: true });
  }
}

function database({ fake, server, findmnt, mounts }: Scene) {
  const db1 = fake.addInstance({ name: "db1" });
  fake.addVolume(db1, { device: "/dev/sdf", tags: new Map([["Name", "pgdata"]]) });
  const other = fake.addVolume(db1, { device: "/dev/sdg" });
  fake.addVolume(db1, { device: "/dev/sdh" });
  mounts.set("/dev/sdf", [server.dataDirectory, "rw,noatime"]);
  mounts.set("/dev/sdg", ["/srv/fast", "rw,relatime,discard"]);
  findmnt.tell(mounts);
  return other.id;
}

Deno.test({
  name: "snapshots: backup.info is the same, and each reads, restores and deletes the other's",
  ignore,
  fn: () =>
    withScene(async (scene, tools) => {
      const { fake, bucket, server, findmnt, mounts, directory, run } = scene;
      const other = database(scene);
      const infos: string[] = [];
      const ids: string[] = [];
      for (const tool of tools) {
        const words = [
          ...["-d", server.conninfo(), "--immediate-checkpoint", "-n", "nightly"],
          ...["--snapshot-instance", "db1", "--snapshot-disk", "pgdata", "--snapshot-disk", other],
          ...["--aws-region", fake.region, "--tag", "team,db"],
          ...["--aws-snapshot-lock-mode", "compliance", "--aws-snapshot-lock-duration", "7"],
          ...["--aws-snapshot-lock-cool-off-period", "3"],
          // Nothing is archived here; Barman does not look.
          ...(tool === OURS ? ["--missing-wal", "ignore"] : []),
        ];
        const serverName = tool.name;
        // Two backups that begin in one second have the same id.
        const before = new Set(fake.snapshots.keys());
        const { code, stdout, stderr } = await run(tool, "backup", [
          ...words,
          bucket.url,
          serverName,
        ]);
        assert.deepEqual([code, stdout], [0, ""], stderr);
        const keys = await bucket.keys(`p/${serverName}/`);
        const [, id = ""] = /base\/(\w+)\//.exec(keys[0] ?? "") ?? [];
        ids.push(id);
        assert.deepEqual(
          keys,
          ["backup.info", "backup_label"].map((name) => `p/${serverName}/base/${id}/${name}`),
        );
        const text = await bucket.text(keys[0] ?? "");
        infos.push(neutral(text, id, serverName, fake));
        assert.deepEqual(
          await bucket.tags(keys[1] ?? ""),
          { team: "db" },
          `the label stored by ${tool.name}`,
        );
        const mine = [...fake.snapshots].filter(([snapshot]) => !before.has(snapshot))
          .map(([, snapshot]) => snapshot);
        assert.deepEqual(
          mine.map(({ volume, tags, lock }) => [volume, [...tags].sort(), lock]),
          mine.map(({ volume }) => [
            volume,
            [
              ["Name", `${volume === other ? other : "pgdata"}-${id.toLowerCase()}`],
              ["team", "db"],
            ],
            { mode: "compliance", duration: "7", coolOff: "3", expires: undefined },
          ]),
        );
        assert.equal(mine.length, 2);
      }
      assert.equal(infos[0], infos[1]);

      for (const [i, maker] of tools.entries()) {
        const reader = tools[1 - i] ?? OURS;
        const at = [bucket.url, maker.name];
        // Each as the other shows it.
        for (const format of ["console", "json"]) {
          for (const command of ["backup-show", "backup-list"] as const) {
            const words = ["--format", format, ...at, ...command === "backup-show" ? ["last"] : []];
            const shown = await Promise.all(tools.map((tool) => run(tool, command, words)));
            const [ours, theirs] = shown.map(({ code, stdout }) => ({ code, stdout }));
            assert.deepEqual(ours, theirs, `${command} ${format}`);
            assert.match(ours?.stdout ?? "", /pgdata|nightly/);
          }
        }
        // Restored by the other: refused, refused, done.
        const recovery = join(directory, `recovery-${i}`);
        const target = fake.addInstance({ name: `target-${i}` });
        const restore = (tool: Tool, ...more: string[]) =>
          run(tool, "restore", [
            ...["--snapshot-recovery-instance", `target-${i}`, ...more],
            ...at,
            ids[i] ?? "",
            recovery,
          ]);
        const both = async (code: number, ...more: string[]) => {
          for (const tool of tools) {
            const done = await restore(tool, ...more);
            assert.deepEqual([done.code, done.stdout], [code, ""], `${tool.name}: ${done.stderr}`);
          }
        };
        await both(4);
        for (const snapshot of [...fake.snapshots.values()]) {
          if (!snapshot.tags.get("Name")?.endsWith((ids[i] ?? "").toLowerCase())) continue;
          const device = snapshot.volume === other ? "/dev/sdk" : "/dev/sdj";
          fake.addVolume(target, { device, snapshot: snapshot.id });
        }
        mounts.clear();
        mounts.set("/dev/sdj", [server.dataDirectory, "rw,noatime"]);
        mounts.set("/dev/sdk", ["/srv/elsewhere", "rw,relatime,discard"]);
        findmnt.tell(mounts);
        await both(4);
        mounts.set("/dev/sdk", ["/srv/fast", "rw"]);
        findmnt.tell(mounts);
        await both(4);
        mounts.set("/dev/sdk", ["/srv/fast", "rw,relatime,discard"]);
        findmnt.tell(mounts);
        // The directory is not there yet.
        await both(4);
        await mkdir(recovery);
        await both(4, "--tablespace", "fast:/x");
        const done = await restore(reader);
        assert.equal(done.code, 0, done.stderr);
        assert.equal(
          await readFile(join(recovery, "backup_label"), "utf8"),
          await bucket.text(`p/${maker.name}/base/${ids[i]}/backup_label`),
        );
        // Deleted by the other: not while it is locked.
        const count = fake.snapshots.size;
        for (const tool of tools) {
          const dry = await run(tool, "backup-delete", ["--dry-run", "-b", "last", ...at]);
          assert.match(
            dry.stdout,
            /^Skipping deletion of snapshots due to --dry-run option\n.*label/,
          );
          const refused = await run(tool, "backup-delete", ["-b", "last", ...at]);
          assert.deepEqual([refused.code, refused.stdout], [1, ""], refused.stderr);
        }
        assert.equal(fake.snapshots.size, count);
        for (const snapshot of fake.snapshots.values()) snapshot.lock = undefined;
        const deleted = await run(reader, "backup-delete", ["-b", "last", ...at]);
        assert.deepEqual([deleted.code, deleted.stdout], [0, ""], deleted.stderr);
        assert.equal(fake.snapshots.size, count - 2);
        assert.deepEqual(await bucket.keys(`p/${maker.name}/`), []);
        for (const snapshot of fake.snapshots.values()) {
          snapshot.lock = { mode: "compliance", duration: "7", coolOff: "3", expires: undefined };
        }
      }
      assert.equal(fake.snapshots.size, 0);
    }),
});

/** What differs from backup to backup is named instead. */
function neutral(text: string, id: string, serverName: string, fake: Ec2Fake): string {
  const snapshots = [...fake.snapshots.keys()].slice(-2);
  return snapshots
    .reduce((all, snapshot, i) => all.replaceAll(snapshot, `SNAPSHOT-${i}`), text)
    .replaceAll(id.toLowerCase(), "id")
    .replaceAll(id, "ID")
    .replaceAll(serverName, "SERVER")
    .replace(/(copy_stats=).*/, (line) => line.replace(/\d+\.\d+/g, "SECONDS"))
    .replace(/((?:begin|end)_(?:time|offset|wal|xlog)=).*/g, "$1…")
    .replace(/cluster_size=\d+/, "cluster_size=…")
    .replace(/(backup_label=').*?(\\nLABEL)/, "$1…$2");
}

Deno.test({
  name: "snapshots: what is shown of Azure's and Google's is what Barman shows",
  ignore,
  fn: () =>
    withScene(async ({ bucket, run }, tools) => {
      const mount = "'mount': {'mount_options': 'rw,noatime', 'mount_point': '/opt/postgres'}";
      const infos = {
        azure: "{'provider': 'azure', 'provider_info': {'subscription_id': " +
          "'00000000-1111-2222-3333-444444444444', 'resource_group': 'pg-rg'}, 'snapshots': [{" +
          `${mount}, 'provider': {'location': 'uksouth', 'lun': 10, 'snapshot_name': ` +
          "'pgdisk0-20260115t103000'}}]}",
        google: "{'provider': 'gcp', 'provider_info': {'project': 'my-project'}, 'snapshots': [{" +
          `${mount}, 'provider': {'device_name': 'persistent-disk-1', 'snapshot_name': ` +
          "'pg-data-20260115t103000', 'snapshot_project': 'my-project'}}]}",
      };
      for (const [name, snapshots_info] of Object.entries(infos)) {
        await bucket.put(
          `p/${name}/base/20260115T103000/backup.info`,
          infoText({
            snapshots_info,
            server_name: name,
            copy_stats: "{'copy_time': 47.1, 'total_time': 47.1}",
          }),
        );
        for (const format of ["console", "json"]) {
          const words = ["--format", format, bucket.url, name, "last"];
          const [ours, theirs] = await Promise.all(
            tools.map(async (tool) => {
              const { code, stdout } = await run(tool, "backup-show", words);
              return { code, stdout };
            }),
          );
          assert.deepEqual(ours, theirs);
          assert.match(ours?.stdout ?? "", /snapshot_name/);
        }
      }
    }),
});

Deno.test({
  name: "snapshots: what can't be ends with the same exit code",
  ignore,
  fn: () =>
    withScene(async (scene, tools) => {
      const { fake, bucket, server, mounts, findmnt, run } = scene;
      database(scene);
      const whole = ["--snapshot-instance", "db1", "--snapshot-disk", "pgdata"];
      const cases: (readonly string[])[] = [
        [...whole, "--gzip"],
        ["--snapshot-instance", "db1"],
        ["--snapshot-disk", "pgdata"],
        [...whole, "--snapshot-disk", "nope"],
        ["--snapshot-disk", "pgdata", "--snapshot-instance", "nope"],
        [
          ...whole,
          ...["--aws-snapshot-lock-mode", "governance", "--aws-snapshot-lock-cool-off-period", "1"],
        ],
        [
          ...whole,
          ...["--aws-snapshot-lock-duration", "1"],
          ...["--aws-snapshot-lock-expiration-date", "2031-01-01T00:00:00.000Z"],
        ],
        [...whole, "--aws-snapshot-lock-duration", "0"],
        [...whole, "--aws-snapshot-lock-cool-off-period", "73"],
        [...whole, "--aws-await-snapshots-timeout", "0"],
      ];
      const same = async (words: readonly string[]) => {
        const codes: (number | null)[] = [];
        for (const tool of tools) {
          const { code } = await run(tool, "backup", [
            ...["-d", server.conninfo(), "--aws-region", fake.region],
            ...words,
            bucket.url,
            "main",
          ]);
          codes.push(code);
        }
        assert.equal(codes[0], codes[1], words.join(" "));
        assert.ok(codes[0] === 3 || codes[0] === 4, `${codes[0]}: ${words.join(" ")}`);
      };
      for (const words of cases) await same(words);
      mounts.clear();
      findmnt.tell(mounts);
      await same(whole);
      assert.deepEqual(await bucket.keys(), []);
      assert.equal(fake.snapshots.size, 0);
    }),
});
