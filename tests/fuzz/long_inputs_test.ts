/** A megabyte of the same few characters: whoever reads or shows it takes a moment, not minutes. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { MalformedBackupInfo, parseBackupInfo } from "../../lib/backup/backup_info.ts";
import { MalformedLiteral, parsePythonLiteral } from "../../lib/backup/python_literal.ts";
import { MalformedTimestamp, parseTimestamp } from "../../lib/backup/timestamp.ts";
import { OptionValueError } from "../../lib/cli/options.ts";
import { createLogger } from "../../lib/cli/log.ts";
import { redactor } from "../../lib/cli/redact.ts";
import { report } from "../../lib/cli/run.ts";
import { csvTag, integer, size, tag } from "../../lib/cli/values.ts";
import { ConninfoError, parseConninfo } from "../../lib/postgres/conninfo_text.ts";
import { passwordIn } from "../../lib/postgres/password_file.ts";
import { serviceIn } from "../../lib/postgres/service_file.ts";
import { memberPath, UnsafeMember } from "../../lib/restore/member_path.ts";
import { parseHistory } from "../../lib/wal/history.ts";
import { parseIdentity } from "../../lib/wal/identity.ts";
import { parseWalName } from "../../lib/wal/segment.ts";
import { TarError, TarReader } from "../../lib/tar/reader.ts";
import { toStoreError } from "../../providers/azure/errors.ts";
import { parseAzureUrl } from "../../providers/azure/url.ts";
import { parseConnectionString } from "../../providers/azure/connection_string.ts";
import { directoryOfUrl } from "../../providers/file/url.ts";
import { pathOfKey } from "../../providers/file/keys.ts";
import { parseGcsUrl } from "../../providers/gcs/url.ts";
import { elementOf } from "../../providers/gcs/errors.ts";
import { StoreError } from "../../providers/object_store.ts";
import { parseS3Url } from "../../providers/s3/url.ts";
import { archive, member, pax } from "../lib/restore/raw_tar.ts";
import { fuzz, inPieces, outcome, outcomeOf, SECRET_ENVIRONMENT } from "./hostile_inputs.ts";

const LENGTH = 1_000_000;

const PIECES = [
  ..." \t\n\r0aA_.,:;/\\'\"@?&=%#([{<-+",
  "1_",
  "a ",
  "://",
  "://a:",
  "a:b@",
  "sig=",
  "sig ",
  "password = ",
  "password='\\",
  "Bearer ",
  "%41",
  "&#1;",
  "<Code>",
  "RequestId",
  "[]",
  "1,",
  "{1:",
  "\\x41",
  "'a'",
  "é",
  "\ud800",
];
const ENDS = ["", "x", "\n", "@", "=", "'", ":"];
const STARTS = [
  "",
  "x",
  "s3://",
  "https://",
  "file:///",
  "postgresql://",
  "host=",
  "status=",
  "[",
  "1",
];

fuzz("long inputs", {
  runs: 50,
  input: fc.record({
    start: fc.constantFrom(...STARTS),
    piece: fc.constantFrom(...PIECES),
    end: fc.constantFrom(...ENDS),
  }),
}, ({ start, piece, end }) => {
  const text = start + piece.repeat(Math.ceil(LENGTH / piece.length)) + end;
  outcome(() => parseBackupInfo(text), MalformedBackupInfo);
  outcome(() => parseBackupInfo(`copy_stats=${text}`), MalformedBackupInfo);
  outcome(() => parsePythonLiteral(text), MalformedLiteral);
  outcome(() => parseTimestamp(text), MalformedTimestamp);
  outcome(() => parseTimestamp(`Mon Jan 15 10:30${text}`), MalformedTimestamp);
  for (const parse of [integer("number"), size, tag, csvTag]) {
    outcome(() => parse(text), OptionValueError);
  }
  outcome(() => parseConninfo(text), ConninfoError);
  outcome(() => serviceIn(`[main]\n${text}`, "main", "/etc/pg_service.conf"), ConninfoError);
  passwordIn(text, { host: "h", port: 1, database: "d", user: "u" });
  outcome(() => memberPath(text), UnsafeMember);
  parseHistory(text);
  parseIdentity(text);
  parseWalName(text);
  elementOf(text, "Code");
  for (
    const parse of [parseS3Url, parseGcsUrl, parseAzureUrl, directoryOfUrl, parseConnectionString]
  ) {
    outcome<unknown>(() => parse(text), StoreError);
  }
  outcome(() => pathOfKey("/root", text), StoreError);
  const error = toStoreError(new Error(text), {
    action: "list",
    where: "there",
    credential: { kind: "sas", token: "sv=1" },
    credentialSource: "AZURE_STORAGE_SAS_TOKEN",
  });
  let shown = "";
  const log = createLogger({
    threshold: 0,
    write: (line) => shown += line,
    redact: redactor(SECRET_ENVIRONMENT),
    now: () => new Date(),
    pid: 1,
  });
  report(error, log);
  report(new Error(text), log);
  assert.ok(shown.length < 1_000_000);
});

fuzz("long names in archives", {
  runs: 30,
  input: fc.record({
    piece: fc.constantFrom("/", "a/", "./", "../", ".", "\udc80", "é", " "),
    end: fc.constantFrom("", "x", "/"),
    type: fc.constantFrom("0", "5", "2"),
  }),
}, async ({ piece, end, type }) => {
  const name = piece.repeat(900_000 / new TextEncoder().encode(piece).length) + end;
  const bytes = archive(pax({ path: name, linkpath: name }), member({ name: "x", type }));
  await outcomeOf(async () => {
    const reader = new TarReader(inPieces(bytes, []));
    for (let entry = await reader.next(); entry !== null; entry = await reader.next()) {
      outcome(() => memberPath(entry?.name ?? ""), UnsafeMember);
    }
  }, TarError);
});
