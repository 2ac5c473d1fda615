/** The way to PostgreSQL: connection strings, service and password files, and what a server may answer. */
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import fc from "fast-check";
import { fatalMessageIn, watchServer } from "../../lib/postgres/backend_messages.ts";
import { connectionString, ConninfoError, resolveConnection } from "../../lib/postgres/conninfo.ts";
import { parseConninfo, quoteConninfoValue } from "../../lib/postgres/conninfo_text.ts";
import { ConnectionError, QueryError, SessionLostError } from "../../lib/postgres/errors.ts";
import { passwordIn } from "../../lib/postgres/password_file.ts";
import { serviceIn } from "../../lib/postgres/service_file.ts";
import { openSession } from "../../lib/postgres/session.ts";
import {
  bytesNear,
  encoded,
  fuzz,
  holdsNoSecret,
  joined,
  outcome,
  outcomeOf,
  SECRETS,
  textNear,
} from "./hostile_inputs.ts";

const STRINGS = [
  `host=/tmp,db.example.org port=5432,5433 user=postgres password='${SECRETS.postgres}' dbname=postgres`,
  `postgresql://user:${SECRETS.postgres}@[::1]:5432,h2/db?sslmode=require&connect_timeout=3`,
  "host = 'a b' options='-c statement_timeout=0' sslmode=verify-full sslrootcert=system",
  "hostaddr=127.0.0.1 target_session_attrs=primary load_balance_hosts=random",
  "postgres:///db?host=%2Ftmp&ssl=true",
];
const WORDS = [
  "=",
  "'",
  "\\",
  "password=",
  "%00",
  "%zz",
  "@",
  "[",
  "]",
  ",,",
  "port=",
  "service=x",
];

fuzz("connection strings", { runs: 4000, input: textNear(STRINGS, WORDS) }, (text) => {
  const words = outcome(() => parseConninfo(text), ConninfoError);
  if (words !== undefined) {
    const again = [...words].map(([key, value]) => `${key}=${quoteConninfoValue(value)}`).join(" ");
    const plain = [...words.keys()].every((key) => /^\w+$/.test(key));
    if (plain) assert.deepEqual(parseConninfo(again), words);
  }
  outcome(
    () => resolveConnection(connectionString({ dbname: text }), { HOME: "/nonexistent" }),
    ConninfoError,
  );
});

fuzz("service files", {
  runs: 2500,
  input: textNear([
    `# comment\n[main]\nhost=db\nport=5432\npassword=${SECRETS.postgres}\n[other]\nhost=x\n`,
    `[main]\r\nhost=db\r\n`,
  ], ["[", "]", "=", "\n", "service=x\n", "[main]\n"]),
}, (text) => {
  outcome(() => serviceIn(text, "main", "/etc/pg_service.conf"), ConninfoError);
});

fuzz("password files", {
  runs: 2500,
  input: textNear([
    `db:5432:postgres:user:${SECRETS.postgres}\n*:*:*:*:x\\:y\\\\z\n`,
    "# comment\n::::\n",
  ], [":", "\\", "*", "\n", "\\\\:"]),
}, (text) => {
  const query = { host: "db", port: 5432, database: "postgres", user: "user" };
  const password = passwordIn(text, query);
  assert.ok(password === undefined || typeof password === "string");
});

const message = (type: string, body: Uint8Array) => {
  const bytes = new Uint8Array(5 + body.length);
  bytes[0] = type.charCodeAt(0);
  new DataView(bytes.buffer).setUint32(1, 4 + body.length);
  bytes.set(body, 5);
  return bytes;
};
const int32 = (...values: number[]) => {
  const bytes = new Uint8Array(4 * values.length);
  values.forEach((value, i) => new DataView(bytes.buffer).setUint32(4 * i, value));
  return bytes;
};
const START = joined(
  message("R", int32(0)),
  message("S", encoded("server_version\x0017.2\0")),
  message("K", int32(1234, 5678)),
  message("Z", encoded("I")),
);
const PASSWORD_WANTED = message("R", int32(3));
const SASL = message("R", joined(int32(10), encoded("SCRAM-SHA-256\0\0")));
const REFUSAL = message(
  "E",
  encoded('SFATAL\0C28P01\0Mpassword authentication failed for user "u"\0\0'),
);
const ROW = joined(
  message("T", joined(Uint8Array.of(0, 1), encoded("x\0"), int32(0), new Uint8Array(14))),
  message("D", joined(Uint8Array.of(0, 1), int32(1), encoded("1"))),
  message("C", encoded("SELECT 1\0")),
  message("Z", encoded("I")),
);
const ANSWERS = [START, joined(START, ROW), PASSWORD_WANTED, SASL, REFUSAL, joined(START, REFUSAL)];
const PLACES = [0, 1, 5, 9, 14, 15];

fuzz("messages of a server", {
  runs: 3000,
  input: fc.tuple(bytesNear(ANSWERS, { places: PLACES }), fc.integer({ min: 1, max: 40 })),
}, ([bytes, size]) => {
  const watch = watchServer({
    onPasswordAsked() {},
    onUnknownAuthentication: (method) => assert.ok(method.length < 50),
    onNonsense: (reason) => assert.ok(reason.length < 100),
  });
  for (let at = 0; at < bytes.length; at += size) watch.push(bytes.subarray(at, at + size));
  assert.ok(watch.key === undefined || Number.isInteger(watch.key.processId));
  fatalMessageIn(bytes);
});

/** A server that answers every client with these bytes and hangs up. */
const replies = { bytes: new Uint8Array(0) as Uint8Array };
const server = net.createServer((socket) => {
  socket.on("error", () => {});
  socket.once("data", () => socket.end(replies.bytes));
});

Deno.test.beforeAll(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
});
Deno.test.afterAll(() => void server.close());

fuzz("sessions with something that is no server", {
  runs: 250,
  input: bytesNear([...ANSWERS, encoded("HTTP/1.1 400 Bad Request\r\n\r\n")], { places: PLACES }),
}, async (bytes) => {
  replies.bytes = bytes;
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  const text = `host=127.0.0.1 port=${address.port} user=u dbname=d sslmode=disable ` +
    `password=${SECRETS.postgres} connect_timeout=5`;
  const notices: string[] = [];
  await outcomeOf(
    async () => {
      const session = await openSession(resolveConnection(text, { HOME: "/nonexistent" }), {
        onNotice: (notice) => void notices.push(notice),
      });
      await session.close();
    },
    ConnectionError,
    QueryError,
    SessionLostError,
  );
  holdsNoSecret(notices.join("\n"), "a notice");
});
