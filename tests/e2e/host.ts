/** A database host: the executable is run there by PostgreSQL's user, as archive_command and by hand. */
import assert from "node:assert/strict";
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type FromDirectoryOptions,
  reachableByServer,
  serverUser,
  startFromDirectory,
  type StartOptions,
  startPostgres,
  type TestPostgres,
} from "../../scripts/servers/embedded_postgres.ts";
import { executablePath, type RunOptions, runProgram, type RunResult } from "./executable.ts";
import type { TestStore } from "./stores.ts";

export interface Host extends AsyncDisposable {
  readonly store: TestStore;
  /** SERVER_NAME */
  readonly serverName: string;
  /** Of PostgreSQL's user; removed at the end. */
  readonly directory: string;
  /** Where the server's user can reach it. */
  readonly executable: string;
  /**
   * Run `barman-cloud COMMAND OPTIONS… URL SERVER POSITIONALS…` as PostgreSQL's user, with nothing in the
   * environment but what the store needs.
   */
  cloud(
    command: string,
    options?: readonly string[],
    positionals?: readonly string[],
    run?: CloudOptions,
  ): Promise<RunResult>;
  /** The same; fails unless it ends with 0. Returns stdout. */
  ok(
    command: string,
    options?: readonly string[],
    positionals?: readonly string[],
    run?: CloudOptions,
  ): Promise<string>;
  /** A value of archive_command; `options` are those of wal-archive. */
  archiveCommand(...options: string[]): string;
  restoreCommand(...options: string[]): string;
  /** A server that archives. Ended with the host. */
  start(options?: StartOptions & { readonly wal?: readonly string[] }): Promise<TestPostgres>;
  /** A restored server; recovery gets WAL from the archive. Ended with the host. */
  startRestored(
    dataDirectory: string,
    options: FromDirectoryOptions & { readonly wal?: readonly string[] },
  ): Promise<TestPostgres>;
  /** A path below `directory` that is not there yet. */
  newPath(name: string): string;
  /** End this server with the host. */
  own<T extends AsyncDisposable>(resource: T): T;
}

export interface CloudOptions extends RunOptions {
  /** Instead of the store's own. */
  readonly storeOptions?: readonly string[];
}

let hosts = 0;

export async function newHost(store: TestStore): Promise<Host> {
  const directory = mkdtempSync(join(tmpdir(), "bce2e-"));
  chmodSync(directory, 0o755);
  const user = serverUser();
  if (user !== undefined) chownSync(directory, user.uid, user.gid);
  const executable = await reachableByServer(await executablePath());
  hosts += 1;
  const serverName = `srv${hosts}`;
  const owned: AsyncDisposable[] = [];
  let paths = 0;

  const cloud: Host["cloud"] = (command, options = [], positionals = [], run = {}) => {
    const { storeOptions = store.options, env = {}, ...rest } = run;
    return runProgram(
      executable,
      [command, ...options, ...storeOptions, store.url, serverName, ...positionals],
      { ...(user ?? {}), cwd: directory, timeout: 120_000, ...rest, env: { ...store.env, ...env } },
    );
  };
  const shellCommand = (words: readonly string[]) => {
    const variables = Object.entries(store.env).map(([name, value]) => `${name}=${value}`);
    return ["env", "-i", ...variables, executable, ...words].map(shellWord).join(" ");
  };
  const host: Host = {
    store,
    serverName,
    directory,
    executable,
    cloud,
    async ok(command, options, positionals, run) {
      const { code, signal, stdout, stderr } = await cloud(command, options, positionals, run);
      assert.equal(code, 0, `${command} ended with ${code ?? signal}: ${stderr}`);
      return stdout;
    },
    archiveCommand: (...options) =>
      shellCommand(["wal-archive", ...options, ...store.options, store.url, serverName]) + " %p",
    restoreCommand: (...options) =>
      shellCommand(["wal-restore", ...options, ...store.options, store.url, serverName]) +
      " %f %p",
    async start({ wal = [], settings, ...options } = {}) {
      return host.own(
        await startPostgres({
          ...options,
          settings: {
            archive_mode: "on",
            archive_command: host.archiveCommand(...wal),
            ...settings,
          },
        }),
      );
    },
    async startRestored(dataDirectory, { wal = [], settings, ...options }) {
      // A configuration that was backed up may hold targets of a recovery before.
      const file = join(dataDirectory, "postgresql.auto.conf");
      const lines = (await readFile(file, "utf8")).split("\n");
      await writeFile(file, lines.filter((line) => !line.startsWith("recovery_target")).join("\n"));
      return host.own(
        await startFromDirectory(dataDirectory, {
          ...options,
          settings: {
            archive_command: host.archiveCommand(...wal),
            restore_command: host.restoreCommand(),
            ...settings,
          },
        }),
      );
    },
    newPath(name) {
      paths += 1;
      return join(directory, `${name}-${paths}`);
    },
    own(resource) {
      owned.push(resource);
      return resource;
    },
    async [Symbol.asyncDispose]() {
      for (const resource of owned.reverse()) await resource[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
  return host;
}

/** Make a directory of PostgreSQL's user. */
export function makeDirectory(path: string, mode = 0o700): string {
  if (!existsSync(path)) mkdirSync(path, { recursive: true });
  chmodSync(path, mode);
  const user = serverUser();
  if (user !== undefined) chownSync(path, user.uid, user.gid);
  return path;
}

/**
 * Read every page of every table and B-tree index, with checksums, and let amcheck compare them.
 * The extension is made where it is not there yet; the server must accept writes.
 */
export async function checkDatabase(server: TestPostgres): Promise<void> {
  await server.query("create extension if not exists amcheck");
  const [indexes] = await server.query(
    `select count(bt_index_check(c.oid, i.indisunique))::int as checked
       from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
      where a.amname = 'btree' and c.relpersistence = 'p' and i.indisvalid and c.relkind = 'i'`,
  );
  assert.ok(Number(indexes?.["checked"]) > 100);
  if (server.major >= 14) {
    const broken = await server.query(
      `select c.relname, h.msg from pg_class c, verify_heapam(c.oid) h
        where c.relkind in ('r', 't', 'm') and c.relpersistence = 'p'`,
    );
    assert.deepEqual(broken, []);
  }
  const [checksums] = await server.query(
    "select coalesce(sum(checksum_failures), 0)::int as failures from pg_stat_database",
  );
  assert.equal(checksums?.["failures"], 0);
}

function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
