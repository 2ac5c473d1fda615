/** A server with something in it, and what of that must be there again after a restore. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type PostgresMajor,
  serverUser,
  startFromDirectory,
  startPostgres,
  type TestPostgres,
} from "../../scripts/servers/embedded_postgres.ts";
import type { Bucket } from "./bucket.ts";
import type { Tool } from "./commands.ts";

export interface Filled extends AsyncDisposable {
  readonly server: TestPostgres;
  /** Where archive_command puts WAL; the commands under test take it from there. */
  readonly archive: string;
}

/** A server with rows in several databases, two tablespaces, links and names that are no plain ASCII. */
export async function startFilled(major: PostgresMajor): Promise<Filled> {
  const directory = await mkdtemp(join(tmpdir(), "interop-pg-"));
  const archive = join(directory, "archive");
  await mkdir(archive);
  const user = serverUser();
  if (user !== undefined) {
    for (const path of [directory, archive]) await Deno.chown(path, user.uid, user.gid);
  }
  const server = await startPostgres({
    major,
    dir: directory,
    settings: {
      archive_mode: "on",
      archive_command: `cp %p "${archive}/.%f" && mv "${archive}/.%f" "${archive}/%f"`,
      autovacuum: false,
    },
    tablespaces: { ts1: "ts1", größer: "größer" },
  });
  await server.query(`
    CREATE TABLE plain AS SELECT i, md5(i::text) AS t FROM generate_series(1, 20000) AS i;
    CREATE TABLE moved TABLESPACE ts1 AS SELECT i FROM generate_series(1, 5000) AS i;
    CREATE TABLE umlaut TABLESPACE "größer" AS SELECT 'ä' || i AS t FROM generate_series(1, 500) AS i;
    CREATE INDEX ON plain (t);
  `);
  return {
    server,
    archive,
    async [Symbol.asyncDispose]() {
      await server.destroy();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** One line that is the same exactly when all rows are. */
export async function fingerprint(server: TestPostgres): Promise<string> {
  const [row] = await server.query(`
    SELECT (SELECT count(*) || ' ' || md5(string_agg(i || t, ',' ORDER BY i)) FROM plain) || ' ' ||
           (SELECT count(*) || ' ' || sum(i) FROM moved) || ' ' ||
           (SELECT count(*) || ' ' || md5(string_agg(t, ',' ORDER BY t)) FROM umlaut) AS fingerprint
  `);
  return String(row?.["fingerprint"]);
}

/** Store what the server has archived since the last time, as its archive_command would. */
export async function archiveAll(
  tool: Tool,
  bucket: Bucket,
  archive: string,
  serverName: string,
  words: readonly string[] = [],
): Promise<void> {
  for (const name of (await readdir(archive)).filter((each) => !each.startsWith(".")).sort()) {
    const result = await tool.run("wal-archive", [
      ...bucket.words,
      bucket.url,
      serverName,
      join(archive, name),
      ...words,
    ], { env: bucket.env });
    assert.equal(result.code, 0, result.stderr);
    await rm(join(archive, name));
  }
}

/** What was archived before the first backup is of no use. */
export async function forgetArchived({ archive }: Filled): Promise<void> {
  for (const name of await readdir(archive)) await rm(join(archive, name));
}

/** Start a server on what was restored, with the WAL that `tool` brings, and compare its rows. */
export async function assertRestored(
  tool: Tool,
  bucket: Bucket,
  serverName: string,
  dataDirectory: string,
  major: PostgresMajor,
  expected: string,
): Promise<void> {
  const wal = await mkdtemp(join(tmpdir(), "interop-wal-"));
  await Deno.chmod(wal, 0o755);
  try {
    for (const key of await bucket.keys(`p/${serverName}/wals/`)) {
      const file = key.slice(key.lastIndexOf("/") + 1);
      const name = file.replace(/\.(gz|bz2|xz|snappy|zst|lz4)$/, "");
      if (name.endsWith(".backup")) continue;
      const result = await tool.run("wal-restore", [
        ...bucket.words,
        bucket.url,
        serverName,
        name,
        join(wal, name),
      ], { env: bucket.env });
      assert.equal(result.code, 0, result.stderr);
      await Deno.chmod(join(wal, name), 0o644);
    }
    await using server = await startFromDirectory(dataDirectory, {
      major,
      settings: {
        restore_command: `cp "${wal}/%f" %p`,
        // Its archive is the original's.
        archive_mode: "off",
      },
    });
    await server.waitUntilReady({ promoted: true });
    assert.equal(await fingerprint(server), expected);
    assert.equal((await readdir(join(dataDirectory, "pg_tblspc"))).length, 2);
  } finally {
    await rm(wal, { recursive: true, force: true });
  }
}
