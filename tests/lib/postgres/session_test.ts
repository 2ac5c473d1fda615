import assert from "node:assert/strict";
import { chmod, chown, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { fileURLToPath } from "node:url";
import {
  ConnectionError,
  QueryError,
  QueryTimeoutError,
  type Session,
  SessionLostError,
} from "../../../lib/postgres/session.ts";
import {
  serverUser,
  startPostgres,
  type TestPostgres,
} from "../../../scripts/servers/embedded_postgres.ts";
import { AUTHORITY, CERTIFICATE, KEY } from "../../providers/s3/test_certificate.ts";
import { eventually, sessionOf } from "./fixtures.ts";

const APPLICATION_NAME = fileURLToPath(new URL("./application_name.ts", import.meta.url));

const hba = [
  "local all postgres trust",
  "local all all scram-sha-256",
  "hostssl all tlsonly 127.0.0.1/32 trust",
  "hostnossl all plainonly 127.0.0.1/32 trust",
  "host all scram 127.0.0.1/32 scram-sha-256",
  "host all md5user 127.0.0.1/32 md5",
  "host all clear 127.0.0.1/32 password",
  "host all postgres 127.0.0.1/32 trust",
];

async function serverWithTls(): Promise<{ pg: TestPostgres; files: string }> {
  const files = await mkdtemp(join(tmpdir(), "barman-cloud-tls-"));
  await chmod(files, 0o755);
  await writeFile(join(files, "root.crt"), AUTHORITY);
  await writeFile(join(files, "server.crt"), CERTIFICATE);
  await writeFile(join(files, "server.key"), KEY, { mode: 0o600 });
  const user = serverUser();
  if (user !== undefined) await chown(join(files, "server.key"), user.uid, user.gid);
  const pg = await startPostgres({
    major: 17,
    hba,
    settings: {
      ssl: true,
      ssl_cert_file: join(files, "server.crt"),
      ssl_key_file: join(files, "server.key"),
    },
  });
  await pg.query(`
    CREATE ROLE scram LOGIN PASSWORD 'it''s a "secret"\\';
    SET password_encryption = 'md5';
    CREATE ROLE md5user LOGIN PASSWORD 'secret';
    RESET password_encryption;
    CREATE ROLE clear LOGIN PASSWORD 'secret';
    CREATE ROLE tlsonly LOGIN;
    CREATE ROLE plainonly LOGIN`);
  return { pg, files };
}

Deno.test("session", async (t) => {
  const { pg, files } = await serverWithTls();
  const tcp = `host=127.0.0.1 port=${pg.port} dbname=postgres`;
  const named = `host=localhost hostaddr=127.0.0.1 port=${pg.port} dbname=postgres`;
  const root = `sslrootcert=${files}/root.crt`;
  const isEncrypted = async (session: Session) => {
    const [row] = await session.query(
      "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    );
    assert.equal(row?.["ssl"], String(session.encrypted));
    return session.encrypted;
  };
  const refused = (conninfo: string, message: RegExp) =>
    assert.rejects(sessionOf(conninfo), (error: Error) => {
      assert.ok(error instanceof ConnectionError, String(error));
      assert.match(error.message, message);
      return true;
    });

  try {
    await t.step("Unix socket: texts, nulls, values, name of the application", async () => {
      await using session = await sessionOf(pg.conninfo());
      assert.deepEqual(
        await session.query(
          `SELECT 1 AS i, 2::bigint AS b, true AS t, now() - now() AS d, NULL AS n,
                  '{"a":1}'::jsonb AS j, '2026-01-02 03:04:05.678901+00'::timestamptz::text AS ts,
                  $1::text AS v, $2::text::boolean::text AS w, $3::text IS NULL AS x,
                  current_setting('application_name') AS a`,
          ["it's", "true", null],
        ),
        [{
          i: "1",
          b: "2",
          t: "t",
          d: "00:00:00",
          n: null,
          j: '{"a": 1}',
          ts: "2026-01-02 03:04:05.678901+00",
          v: "it's",
          w: "true",
          x: "t",
          a: "barman_cloud_backup",
        }],
      );
      assert.equal(session.encrypted, false);
    });

    await t.step("name of the application and options as the user wants them", async () => {
      await using session = await sessionOf(
        `${pg.conninfo()} application_name='my app' options='-c work_mem=1234kB -c TimeZone=Asia/Kolkata'`,
      );
      const [row] = await session.query(
        `SELECT current_setting('application_name') AS a, current_setting('work_mem') AS w,
                current_setting('TimeZone') AS z`,
      );
      assert.deepEqual(row, { a: "my app", w: "1234kB", z: "Asia/Kolkata" });
    });

    await t.step("a refused query is an error of its own, and the session goes on", async () => {
      await using session = await sessionOf(pg.conninfo());
      await assert.rejects(session.query("SELECT 1/0"), (error) => {
        assert.ok(error instanceof QueryError);
        assert.equal(error.sqlState, "22012");
        assert.match(error.message, /division by zero/);
        return true;
      });
      const answers = await Promise.all(
        ["1", "2", "3"].map((value) => session.query("SELECT $1::text AS v", [value])),
      );
      assert.deepEqual(answers.flat(), [{ v: "1" }, { v: "2" }, { v: "3" }]);
    });

    await t.step("passwords: scram-sha-256, md5, clear text, none, wrong", async () => {
      const quoted = "password='it\\'s a \"secret\"\\\\'";
      for (
        const login of [`user=scram ${quoted}`, "user=md5user password=secret"].flatMap((who) => [
          `${tcp} ${who}`,
          `${tcp} ${who} sslmode=disable`,
        ]).concat([
          `${tcp} user=clear password=secret sslmode=require`,
          `host=${pg.socketDirectory} port=${pg.port} dbname=postgres user=scram ${quoted}`,
        ])
      ) {
        await using session = await sessionOf(login);
        assert.equal((await session.query("SELECT 1 AS one"))[0]?.["one"], "1", login);
      }
      await refused(`${tcp} user=scram`, /asks for a password, and none was given/);
      await refused(`${tcp} user=scram password=wrong`, /password authentication failed for user/);
      await refused(`${tcp} user=nobody`, /no pg_hba.conf entry/);
      await refused(`${tcp} user=postgres dbname=absent`, /database "absent" does not exist/);
    });

    await t.step("TLS: the modes", async () => {
      const modes: ReadonlyArray<readonly [string, boolean]> = [
        [`${tcp} user=postgres`, true],
        [`${tcp} user=postgres sslmode=disable`, false],
        [`${tcp} user=postgres sslmode=allow`, false],
        [`${tcp} user=postgres sslmode=require`, true],
        [`${tcp} user=postgres sslmode=verify-ca ${root}`, true],
        [`${named} user=postgres sslmode=verify-full ${root}`, true],
        [`${named} user=postgres sslmode=verify-full ${root} sslnegotiation=direct`, true],
        [`${tcp} user=tlsonly`, true],
        [`${tcp} user=tlsonly sslmode=allow`, true],
        [`${tcp} user=plainonly`, false],
        [`${tcp} user=plainonly sslmode=allow`, false],
        [`host=${pg.socketDirectory} port=${pg.port} user=postgres sslmode=require`, false],
      ];
      for (const [conninfo, expected] of modes) {
        await using session = await sessionOf(conninfo);
        assert.equal(await isEncrypted(session), expected, conninfo);
      }
      await refused(`${tcp} user=tlsonly sslmode=disable`, /no pg_hba.conf entry/);
      await refused(`${tcp} user=plainonly sslmode=require`, /no pg_hba.conf entry/);
    });

    await t.step("TLS: verification", async () => {
      // The certificate is for localhost, not for the address.
      await refused(
        `${tcp} user=postgres sslmode=verify-full ${root}`,
        /TLS with the server failed/,
      );
      await writeFile(join(files, "other.crt"), rootCertificates[0] ?? "");
      for (const mode of ["require", "verify-ca", "verify-full"]) {
        await refused(
          `${named} user=postgres sslmode=${mode} sslrootcert=${files}/other.crt`,
          /TLS with the server failed/,
        );
      }
      await refused(
        `${named} user=postgres sslrootcert=system`,
        /TLS with the server failed/,
      );
      await refused(
        `${named} user=postgres sslmode=verify-ca sslrootcert=${files}/absent.crt`,
        /Cannot read the root certificate .*absent\.crt/,
      );
    });

    await t.step("a session that the server ends is lost at once, with its reason", async () => {
      await using session = await sessionOf(`${tcp} user=postgres`);
      const [row] = await session.query("SELECT pg_backend_pid() AS pid");
      await pg.query(`SELECT pg_terminate_backend(${row?.["pid"]})`);
      await eventually(() => session.lost.aborted, "loss noticed");
      assert.ok(session.lost.reason instanceof SessionLostError);
      assert.match(session.lost.reason.message, /administrator command/);
      await assert.rejects(session.query("SELECT 1"), SessionLostError);
    });

    await t.step("… also in the middle of a query", async () => {
      await using session = await sessionOf(pg.conninfo());
      const [row] = await session.query("SELECT pg_backend_pid() AS pid");
      const sleeping = session.query("SELECT pg_sleep(60)");
      const queued = session.query("SELECT 1");
      const rejections = Promise.all([
        assert.rejects(sleeping, SessionLostError),
        assert.rejects(queued, SessionLostError),
      ]);
      await pg.query(`SELECT pg_terminate_backend(${row?.["pid"]})`);
      await rejections;
      assert.equal(session.lost.aborted, true);
    });

    await t.step("a signal cancels the query on the server; the session stays", async () => {
      for (const conninfo of [pg.conninfo(), `${tcp} user=postgres sslmode=require`]) {
        await using session = await sessionOf(conninfo);
        const controller = new AbortController();
        const reason = new Error("stop it");
        const began = performance.now();
        const sleeping = session.query("SELECT pg_sleep(60)", [], { signal: controller.signal });
        setTimeout(() => controller.abort(reason), 100);
        await assert.rejects(sleeping, (error) => error === reason);
        assert.ok(performance.now() - began < 4000);
        assert.equal((await session.query("SELECT 1 AS one"))[0]?.["one"], "1");
        const [row] = await pg.query(
          "SELECT count(*)::text AS n FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' AND pid <> pg_backend_pid()",
        );
        assert.equal(row?.["n"], "0");
        await assert.rejects(
          session.query("SELECT 1", [], { signal: controller.signal }),
          (error) => error === reason,
        );
      }
    });

    await t.step("a time limit cancels too", async () => {
      await using session = await sessionOf(pg.conninfo());
      await assert.rejects(
        session.query("SELECT pg_sleep(60)", [], { timeoutMs: 100 }),
        QueryTimeoutError,
      );
      assert.equal(session.lost.aborted, false);
    });

    await t.step("closing ends the server's side, idle or not", async () => {
      const idle = await sessionOf(`${tcp} user=postgres application_name=closing`);
      const busy = await sessionOf(`${tcp} user=postgres application_name=closing`);
      const sleeping = assert.rejects(busy.query("SELECT pg_sleep(60)"), SessionLostError);
      await eventually(async () => {
        const [row] = await pg.query(
          "SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name = 'closing' AND state = 'active'",
        );
        return row?.["n"] === 1;
      }, "query under way");
      await Promise.all([idle.close(), busy.close()]);
      await sleeping;
      assert.equal(idle.lost.aborted || busy.lost.aborted, false, "closed is not lost");
      await eventually(async () => {
        const [row] = await pg.query(
          "SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name = 'closing'",
        );
        return row?.["n"] === 0;
      }, "both gone");
      await assert.rejects(idle.query("SELECT 1"), SessionLostError);
    });

    await t.step("keep-alive: a query each so often, not beside another one", async () => {
      await using session = await sessionOf(`${pg.conninfo()} application_name=alive`);
      const lastQuery = async () => {
        const [row] = await pg.query(
          "SELECT query, query_start::text AS at FROM pg_stat_activity WHERE application_name = 'alive'",
        );
        return { query: row?.["query"], at: row?.["at"] };
      };
      await session.query("SELECT 'mine'");
      const stop = session.keepAlive(50);
      await eventually(async () => (await lastQuery()).query === "SELECT 1", "first keep-alive");
      const first = await lastQuery();
      await eventually(async () => (await lastQuery()).at !== first.at, "next keep-alive");
      await session.query("SELECT pg_sleep(0.3)");
      stop();
      await session.query("SELECT 'last'");
      await new Promise((resolve) => setTimeout(resolve, 200));
      assert.equal((await lastQuery()).query, "SELECT 'last'");
    });

    await t.step("several hosts: the first that is there and of the wanted kind", async () => {
      const [row] = await pg.query("SHOW port");
      const hosts = `host=/nonexistent,127.0.0.1 port=${
        row?.["port"]
      } user=postgres dbname=postgres`;
      await using session = await sessionOf(`${hosts} target_session_attrs=read-write`);
      assert.equal(session.host.host, "127.0.0.1");
      await using preferred = await sessionOf(`${hosts} target_session_attrs=prefer-standby`);
      assert.equal(preferred.host.host, "127.0.0.1");
      await refused(
        `${hosts} target_session_attrs=standby`,
        /nonexistent.*there is no such socket.*; 127\.0\.0\.1:\d+: is not a standby/,
      );
    });

    await t.step("variables that the client library would read change nothing", async () => {
      // In a process of its own: this one's variables are those of all tests that run at the time.
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--no-check", APPLICATION_NAME, pg.conninfo()],
        env: {
          PGTARGETSESSIONATTRS: "nonsense",
          PGSSL: "require",
          PGMAX_LIFETIME: "1",
          PGAPPNAME: "x",
        },
        signal: AbortSignal.timeout(60_000),
      }).output();
      assert.ok(success, new TextDecoder().decode(stderr));
      const told = JSON.parse(new TextDecoder().decode(stdout));
      assert.deepEqual(told, ["barman_cloud_backup", "nonsense"]);
    });
  } finally {
    await pg.destroy();
    await rm(files, { recursive: true });
  }
});

Deno.test("connecting: nobody there, silence, babble, abort", async () => {
  const sockets = new Set<Socket>();
  let answer: (socket: Socket) => void = () => {};
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    answer(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const to = `host=127.0.0.1 port=${port} user=u password=hidden dbname=d connect_timeout=2`;
  const fails = (conninfo: string, message: RegExp) =>
    assert.rejects(sessionOf(conninfo), (error: Error) => {
      assert.ok(error instanceof ConnectionError, String(error));
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /hidden/);
      return true;
    });
  try {
    await fails(`${to} sslmode=disable`, /127\.0\.0\.1:\d+: no answer within 2 s/);
    await fails(`${to} sslmode=require`, /no answer within 2 s/);
    answer = (socket) => socket.end();
    await fails(`${to} sslmode=disable`, /the server closed the connection/);
    await fails(`${to} sslmode=require`, /the server closed the connection/);
    answer = (socket) => socket.write("HTTP/1.1 400 Bad Request\r\n\r\n");
    await fails(`${to} sslmode=require`, /more than one byte/);
    answer = (socket) => socket.write("N");
    await fails(`${to} sslmode=require`, /does not support TLS/);
    // AuthenticationGSS
    answer = (socket) => socket.write(new Uint8Array([0x52, 0, 0, 0, 8, 0, 0, 0, 7]));
    await fails(`${to} sslmode=disable`, /GSSAPI authentication: not supported/);

    answer = () => {};
    const controller = new AbortController();
    const reason = new Error("changed my mind");
    setTimeout(() => controller.abort(reason), 50);
    await assert.rejects(
      sessionOf(`${to} sslmode=disable`, { signal: controller.signal }),
      (error) => error === reason,
    );
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
  await fails(`${to} sslmode=disable`, /connection refused/);
  await fails(
    "host=/nonexistent user=u dbname=d",
    /\/nonexistent\/\.s\.PGSQL\.5432: there is no such socket/,
  );
  await fails("host=nosuch.invalid user=u dbname=d", /the host name cannot be resolved/);
});
