/** CloudNativePG's lines on Azure and on Google, on the compiled executable and the servers that can run here. */
import assert from "node:assert/strict";
import { chmod, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startAzuriteForTests } from "../../scripts/servers/azurite.ts";
import { startGcsFakeForTests } from "../../scripts/servers/fake_gcs_server.ts";
import { callerHost } from "./caller_host.ts";
import { cloudNativePgOn } from "./command_lines.ts";
import { cloudNativePgList, cloudNativePgShow } from "./parsing.ts";
import { newSegments } from "./segments.ts";

type Provider = Parameters<typeof cloudNativePgOn>[0];

const azure = await startAzuriteForTests();

Deno.test({
  name: "CloudNativePG on Azure: by a connection string",
  ignore: azure === null,
  async fn() {
    if (azure === null) throw new Error("Without a server this is ignored");
    const url = `${azure.url}/${await azure.newContainer()}/backups/`;
    const { AZURE_STORAGE_CONNECTION_STRING = "" } = azure.env;
    assert.notEqual(AZURE_STORAGE_CONNECTION_STRING, "");
    await story("azure-blob-storage", url, () => ({ AZURE_STORAGE_CONNECTION_STRING }));
  },
});
if (azure !== null) Deno.test.afterAll(() => azure.stop());

Deno.test("CloudNativePG on Google: application credentials in a file", async () => {
  const google = await startGcsFakeForTests();
  try {
    const url = `gs://${await google.newBucket()}/backups/`;
    await story("google-cloud-storage", url, async (directory) => {
      const GOOGLE_APPLICATION_CREDENTIALS = join(directory, ".application_credentials.json");
      // Never asked for a token: an emulator takes none.
      await writeFile(GOOGLE_APPLICATION_CREDENTIALS, "{}");
      await chmod(GOOGLE_APPLICATION_CREDENTIALS, 0o644);
      return { GOOGLE_APPLICATION_CREDENTIALS, ...google.env };
    });
  } finally {
    await google.stop();
  }
});

async function story(
  provider: Provider,
  $URL: string,
  environment: (
    directory: string,
  ) => Record<string, string> | Promise<Record<string, string>>,
): Promise<void> {
  await using host = await callerHost({ $URL, $SERVER: "cluster-example" });
  const lines = cloudNativePgOn(provider);
  const env = await environment(host.directory);
  assert.equal((await host.run(lines.check, {}, { env })).code, 0);

  const server = await host.startPostgres({});
  const wals = await newSegments(server, 3);
  const archived = await Promise.all(
    wals.map((name) =>
      host.run(lines.walArchive, { $WAL: `pg_wal/${name}` }, { env, cwd: server.dataDirectory })
    ),
  );
  for (const { code, stdout, stderr } of archived) {
    assert.deepEqual([code, stdout], [0, ""], stderr);
  }
  assert.equal((await host.run(lines.check, {}, { env })).code, 1);

  const $NAME = "backup-20260115103000";
  const backup = await host.run(lines.backup, { $NAME }, {
    env: { ...env, PGHOST: server.socketDirectory, PGPORT: String(server.port) },
  });
  assert.deepEqual([backup.code, backup.stdout], [0, ""], backup.stderr);
  const shown = await host.run(lines.show, { $NAME }, { env });
  const read = cloudNativePgShow(shown.stdout);
  assert.deepEqual([shown.code, read["backup_name"], read["timeline"]], [0, $NAME, 1]);
  const deleted = await host.run(lines.delete, {}, { env });
  assert.deepEqual([deleted.code, deleted.stdout, deleted.stderr], [0, "", ""]);
  const listed = await host.run(lines.list, {}, { env });
  assert.deepEqual([listed.code, cloudNativePgList(listed.stdout)], [0, [read]]);

  const spool = await host.newDirectory("spool");
  const fetched = await Promise.all(
    [...wals, "0000000100000000000000FF"].map((name) =>
      host.run(lines.walRestore, { $WAL: name, $DESTINATION: join(spool, name) }, { env })
    ),
  );
  assert.deepEqual(fetched.map(({ code }) => code), [0, 0, 0, 1]);
  assert.deepEqual((await readdir(spool)).sort(), [...wals].sort());
  for (const name of wals) {
    const original = await readFile(join(server.dataDirectory, "pg_wal", name));
    assert.ok(original.equals(await readFile(join(spool, name))), name);
  }
  const $DESTINATION = join(host.directory, "pgdata");
  const $ID = String(read["backup_id"]);
  const restored = await host.run(lines.restore, { $ID, $DESTINATION }, { env });
  assert.deepEqual([restored.code, restored.stdout], [0, ""], restored.stderr);
  assert.ok((await readdir($DESTINATION)).includes("PG_VERSION"));
}
