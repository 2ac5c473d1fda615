/** What callers find on their host: the nine names in PATH, a PostgreSQL server, a bucket. */
import { chmod, chown, copyFile, mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  reachableByServer,
  serverUser,
  startPostgres,
  type TestPostgres,
} from "../../scripts/servers/embedded_postgres.ts";
import type { S3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { COMMANDS } from "../../lib/cli/commands.ts";
import { executablePath, runProgram, type RunResult } from "../e2e/executable.ts";
import { type CallerLine, fillIn, type Placeholder } from "./command_lines.ts";

export interface S3CallerHost extends CallerHost {
  readonly endpoint: string;
  readonly bucketUrl: string;
  /** The store's variables as the caller has them, without PATH. */
  readonly keys: Readonly<Record<string, string>>;
}

export interface CallerHost extends AsyncDisposable {
  /** Of the server's user; removed at the end. */
  readonly directory: string;
  /** Begins with the directory of the nine names. */
  readonly path: string;
  /** Run a line of a caller, as the server's user, with PATH and `env` alone in the environment. */
  run(
    line: CallerLine,
    values: Readonly<Partial<Record<Placeholder, string>>>,
    options?: { readonly env?: Readonly<Record<string, string>>; readonly cwd?: string },
  ): Promise<RunResult>;
  newDirectory(name: string): Promise<string>;
  startPostgres(settings: Readonly<Record<string, string>>): Promise<TestPostgres>;
}

/** @param tls talk TLS to the store, with its authority in AWS_CA_BUNDLE, where the server can */
export async function s3CallerHost(s3: S3ForTests, tls: boolean): Promise<S3CallerHost> {
  const endpoint = tls ? s3.rgw?.tlsEndpoint ?? s3.endpoint : s3.endpoint;
  const { AWS_ACCESS_KEY_ID = "", AWS_SECRET_ACCESS_KEY = "" } = s3.env;
  const bucketUrl = `s3://${await s3.newBucket()}`;
  const host = await callerHost({ $ENDPOINT: endpoint, $URL: bucketUrl });
  const authority = join(host.directory, "ca.pem");
  if (tls && s3.rgw !== undefined) {
    await copyFile(s3.rgw.caFile, authority);
    await chmod(authority, 0o644);
  }
  return {
    ...host,
    endpoint,
    bucketUrl,
    keys: {
      AWS_ACCESS_KEY_ID,
      AWS_SECRET_ACCESS_KEY,
      ...(tls && s3.rgw !== undefined ? { AWS_CA_BUNDLE: authority } : {}),
    },
  };
}

/** @param always values for every line */
export async function callerHost(
  always: Readonly<Partial<Record<Placeholder, string>>>,
): Promise<CallerHost> {
  const user = serverUser();
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-callers-"));
  await chmod(directory, 0o755);
  if (user !== undefined) await chown(directory, user.uid, user.gid);
  const own = async (path: string) => {
    await mkdir(path, { recursive: true });
    if (user !== undefined) await chown(path, user.uid, user.gid);
    return path;
  };
  const bin = await own(join(directory, "bin"));
  const executable = await reachableByServer(await executablePath());
  for (const { name, barman } of COMMANDS) {
    if (barman) await symlink(executable, join(bin, `barman-cloud-${name}`));
  }
  const path = `${bin}:/usr/bin:/bin`;
  const servers: TestPostgres[] = [];
  return {
    directory,
    path,
    run: ({ command, words }, values, { env = {}, cwd = directory } = {}) =>
      runProgram(join(bin, command), fillIn(words, { ...always, ...values }), {
        env: { PATH: path, ...env },
        cwd,
        // A backup looks for its WAL for a minute; the servers here archive nothing by themselves.
        timeout: 180_000,
        ...user,
      }),
    newDirectory: (name) => own(join(directory, name)),
    async startPostgres(settings) {
      const server = await startPostgres({ settings });
      servers.push(server);
      return server;
    },
    async [Symbol.asyncDispose]() {
      for (const server of servers) await server[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
