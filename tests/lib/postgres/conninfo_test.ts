import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import {
  connectionString,
  ConninfoError,
  type Environment,
  resolveConnection,
} from "../../../lib/postgres/conninfo.ts";
import {
  parseConninfo as parseWords,
  quoteConninfoValue,
} from "../../../lib/postgres/conninfo_text.ts";
import { passwordIn } from "../../../lib/postgres/password_file.ts";
import { serviceIn } from "../../../lib/postgres/service_file.ts";

const parse = (text: string) => Object.fromEntries(parseWords(text));
/** No files of the user who runs the tests. */
const nowhere: Environment = { HOME: "/nonexistent", PGSYSCONFDIR: "/nonexistent" };

async function withHome(
  files: Readonly<Record<string, string>>,
  work: (home: string) => Promise<void> | void,
): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), "barman-cloud-home-"));
  try {
    for (const [name, text] of Object.entries(files)) {
      await mkdir(join(home, name, ".."), { recursive: true });
      await writeFile(join(home, name), text, { mode: 0o600 });
    }
    await work(home);
  } finally {
    await rm(home, { recursive: true });
  }
}

Deno.test("pairs: every set of words survives quoting", () => {
  const keyword = fc.stringMatching(/^[a-z_]{1,12}$/);
  const value = fc.string({ unit: "binary" }).filter((text) => !text.includes("\0"));
  fc.assert(fc.property(fc.dictionary(keyword, value), fc.boolean(), (words, spaced) => {
    const text = Object.entries(words)
      .map(([name, value]) => `${name}${spaced ? " = " : "="}${quoteConninfoValue(value)}`)
      .join(spaced ? " \t\n " : " ");
    assert.deepEqual(parse(text), { ...words });
  }));
});

Deno.test("pairs: libpq's grammar", () => {
  assert.deepEqual(parse(""), {});
  assert.deepEqual(parse("  host = 'a b'  port=1 "), { host: "a b", port: "1" });
  assert.deepEqual(parse("password='it\\'s \\\\ here'user=x"), {
    password: "it's \\ here",
    user: "x",
  });
  assert.deepEqual(parse("user=a\\ b"), { user: "a b" });
  assert.deepEqual(parse("host= port=2"), { host: "port=2" });
  assert.deepEqual(parse("host='' user=a user=b"), { host: "", user: "b" });
  assert.throws(() => parse("host"), /missing "=" after "host"/);
  assert.throws(() => parse("host a=b"), /missing "=" after "host"/);
  assert.throws(() => parse("host='abc"), /unterminated/);
});

Deno.test("URI: libpq's grammar", () => {
  assert.deepEqual(parse("postgresql://"), {});
  assert.deepEqual(parse("postgres://localhost/db"), { host: "localhost", dbname: "db" });
  assert.deepEqual(
    parse("postgresql://u:p%40%3A@h:5433/d%20b?sslmode=require&options=-c%20a%3Db"),
    {
      user: "u",
      password: "p@:",
      host: "h",
      port: "5433",
      dbname: "d b",
      sslmode: "require",
      options: "-c a=b",
    },
  );
  assert.deepEqual(parse("postgresql://a:1,b,[::1]:3/x?target_session_attrs=primary"), {
    host: "a,b,::1",
    port: "1,,3",
    dbname: "x",
    target_session_attrs: "primary",
  });
  assert.deepEqual(parse("postgresql://%2Fvar%2Frun/db"), { host: "/var/run", dbname: "db" });
  assert.deepEqual(parse("postgresql:///db?host=/tmp&port=1"), {
    dbname: "db",
    host: "/tmp",
    port: "1",
  });
  assert.deepEqual(parse("postgresql://u@/"), { user: "u" });
  assert.deepEqual(parse("postgresql://h?ssl=true"), { host: "h", sslmode: "require" });
  for (
    const bad of [
      "postgresql://h/%zz",
      "postgresql://h/%00",
      "postgresql://h?a",
      "postgresql://h?a=b=c",
      "postgresql://h?=c",
      "postgresql://[::1",
    ]
  ) assert.throws(() => parse(bad), ConninfoError, bad);
});

Deno.test("command line: a name, a string, nothing", () => {
  assert.equal(connectionString({}), "dbname=postgres");
  assert.equal(connectionString({ dbname: "", host: "ignored" }), "");
  assert.equal(connectionString({ dbname: "host=a b", host: "ignored" }), "host=a b");
  assert.equal(connectionString({ dbname: "postgresql://h/d", user: "x" }), "postgresql://h/d");
  assert.equal(
    connectionString({ dbname: "my db", host: "h", port: "", user: "it's" }),
    "host=h user='it\\'s' dbname='my db'",
  );
});

Deno.test("defaults, environment, explicit words", () => {
  const base = resolveConnection("", nowhere);
  assert.equal(base.user, userInfo().username);
  assert.equal(base.database, base.user);
  assert.equal(base.tls.mode, "prefer");
  assert.equal(base.connectTimeout, 30);
  assert.ok(base.hosts.every((host) => host.kind === "socket" && host.port === 5432));

  const env = {
    ...nowhere,
    PGHOST: "db.example",
    PGPORT: "6000",
    PGUSER: "eve",
    PGPASSWORD: "secret",
    PGDATABASE: "d",
    PGSSLMODE: "require",
    PGCONNECT_TIMEOUT: "1",
    PGAPPNAME: "app",
    PGOPTIONS: "-c work_mem=1MB",
    PGTZ: "Asia/Kolkata",
    PGTARGETSESSIONATTRS: "any",
  };
  const fromEnv = resolveConnection("", env);
  assert.deepEqual(fromEnv.hosts, [
    { kind: "tcp", host: "db.example", address: undefined, port: 6000, password: "secret" },
  ]);
  assert.equal(fromEnv.user, "eve");
  assert.equal(fromEnv.database, "d");
  assert.equal(fromEnv.applicationName, "app");
  assert.equal(fromEnv.connectTimeout, 2);
  assert.deepEqual(fromEnv.runtime, { options: "-c work_mem=1MB", TimeZone: "Asia/Kolkata" });

  const explicit = resolveConnection("host=/run/pg port=7 user=joe dbname=x sslmode=disable", env);
  assert.deepEqual(explicit.hosts, [
    { kind: "socket", host: "/run/pg", address: undefined, port: 7, password: "secret" },
  ]);
  assert.equal(explicit.user, "joe");
  assert.equal(explicit.tls.mode, "disable");
  assert.equal(resolveConnection("host=''", env).hosts[0]?.kind, "socket", "empty is given");
});

Deno.test("several hosts", () => {
  const hosts = (text: string) =>
    resolveConnection(text, nowhere).hosts.map((host) => [host.host, host.address, host.port]);
  assert.deepEqual(hosts("host=a,b port=1,2"), [["a", undefined, 1], ["b", undefined, 2]]);
  assert.deepEqual(hosts("host=a,b port=3"), [["a", undefined, 3], ["b", undefined, 3]]);
  assert.deepEqual(hosts("host=a,b port=,2"), [["a", undefined, 5432], ["b", undefined, 2]]);
  assert.deepEqual(hosts("host=a hostaddr=10.0.0.1"), [["a", "10.0.0.1", 5432]]);
  assert.deepEqual(hosts("hostaddr=10.0.0.1,::1"), [
    ["10.0.0.1", "10.0.0.1", 5432],
    ["::1", "::1", 5432],
  ]);
  assert.throws(() => hosts("host=a,b,c port=1,2"), /2 ports for 3 hosts/);
  assert.throws(() => hosts("host=a,b hostaddr=10.0.0.1"), /2 host names and 1 hostaddr/);
});

Deno.test("values that are none are refused, secrets are not shown", () => {
  const refused: Record<string, RegExp> = {
    "colour=red": /Invalid connection option "colour"/,
    "port=0": /Invalid port number "0"/,
    "postgresql://::1/x": /Invalid port number: it must/,
    "port=http": /Invalid port number: it must/,
    "sslmode=maybe": /Invalid sslmode value "maybe"/,
    "connect_timeout=soon": /Invalid integer "soon"/,
    "target_session_attrs=best": /Invalid target_session_attrs/,
    "channel_binding=require": /channel_binding is not supported/,
    "gssencmode=require": /gssencmode is not supported/,
    "require_auth=scram-sha-256": /require_auth is not supported/,
    "host=@abstract": /abstract sockets/,
    "sslmode=require sslrootcert=system": /must be verify-full/,
    "sslmode=verify-full": /no file .*root\.crt/,
    "sslmode=prefer sslnegotiation=direct": /sslnegotiation=direct/,
  };
  for (const [text, message] of Object.entries(refused)) {
    assert.throws(() => resolveConnection(text, nowhere), (error: Error) => {
      assert.ok(error instanceof ConninfoError);
      assert.match(error.message, message);
      return true;
    });
  }
  assert.throws(
    () => parseWords("postgresql://u:%zzsecret@h/"),
    (error: Error) => !error.message.includes("secret"),
  );
});

Deno.test("TLS: a root certificate makes `require` verify", async () => {
  await withHome({ ".postgresql/root.crt": "x" }, (home) => {
    const tls = (text: string) => resolveConnection(text, { ...nowhere, HOME: home }).tls;
    assert.equal(tls("host=h sslmode=require").mode, "verify-ca");
    assert.equal(tls("host=h").mode, "prefer");
    assert.equal(tls("host=h sslmode=verify-full").rootCertificate, `${home}/.postgresql/root.crt`);
    assert.equal(tls("host=h sslrootcert=system").mode, "verify-full");
  });
});

Deno.test("password file: fields, wildcards, escapes", () => {
  const query = { host: "h", port: 5432, database: "d", user: "u" };
  assert.equal(passwordIn("h:5432:d:u:p", query), "p");
  assert.equal(passwordIn("#h:5432:d:u:no\n*:*:*:u:a\\:b\\\\:c\r\n", query), "a:b\\:c");
  assert.equal(passwordIn("x:*:*:*:1\nh:*:*:*:2\n*:*:*:*:3", query), "2");
  assert.equal(passwordIn("h:5432:d:other:p\nnonsense\n", query), undefined);
  assert.equal(passwordIn("a\\:b:*:*:*:p", { ...query, host: "a:b" }), "p");
  assert.equal(passwordIn("\\*:*:*:*:p", query), undefined, "an escaped star is a star");
});

Deno.test("password file: used for its host, warned about when others can read it", async () => {
  await withHome(
    { ".pgpass": "db:*:*:*:one\nlocalhost:*:*:*:two\n/x:*:*:*:three\n" },
    async (home) => {
      const env = { ...nowhere, HOME: home, PGUSER: "u" };
      const password = (text: string) => resolveConnection(text, env).hosts[0]?.password;
      assert.equal(password("host=db"), "one");
      assert.equal(password("host=localhost"), "two");
      assert.equal(password(""), "two", "the default socket directory counts as localhost");
      assert.equal(password("host=/x"), "three");
      assert.equal(password("host=elsewhere"), undefined);
      assert.equal(password("host=db password=mine"), "mine");
      await chmod(join(home, ".pgpass"), 0o640);
      const open = resolveConnection("host=db", env);
      assert.equal(open.hosts[0]?.password, undefined);
      assert.match(open.warnings.join(), /\.pgpass is not used: other users have access/);
    },
  );
});

Deno.test("service file: between explicit words and the environment", async () => {
  const text =
    "# servers\n[other]\nhost=no\n\n[main]\nhost=svc\nport=77\nuser=joe\n[main]\nhost=late\n";
  await withHome({ ".pg_service.conf": text, "mine.conf": "[m]\nhost=mine\n" }, (home) => {
    const env = { ...nowhere, HOME: home, PGHOST: "fromenv", PGUSER: "envuser" };
    const found = resolveConnection("service=main user=me", env);
    assert.equal(found.hosts[0]?.host, "svc");
    assert.equal(found.hosts[0]?.port, 77);
    assert.equal(found.user, "me");
    const named = { ...env, PGSERVICE: "m", PGSERVICEFILE: join(home, "mine.conf") };
    assert.equal(resolveConnection("", named).hosts[0]?.host, "mine");
    assert.throws(() => resolveConnection("service=absent", env), /service "absent" not found/);
    const missing = { ...env, PGSERVICEFILE: join(home, "none.conf") };
    assert.throws(() => resolveConnection("service=m", missing), /Cannot read the service file/);
  });
  assert.throws(() => serviceIn("[a]\nhost", "a", "f"), /line 2 of f: it has no "="/);
  assert.throws(() => serviceIn("[a]\nservice=b", "a", "f"), /no connection option there/);
});

Deno.test("what stands in the wrong place may be a password, and is not repeated", () => {
  for (
    const text of [
      "host=h password=hunter2 secret words",
      "password=very secret",
      "postgresql://user:pa/secret@host/db",
      " postgresql://user:secret@host/db?x=1",
      "host=h 'secret'=1",
    ]
  ) {
    assert.throws(() => resolveConnection(text, { HOME: "/nonexistent" }), (error) => {
      assert.ok(error instanceof ConninfoError);
      assert.doesNotMatch(error.message, /hunter2|secret|sec\[/, error.message);
      return true;
    }, text);
  }
});
