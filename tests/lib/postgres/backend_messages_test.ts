import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { fatalMessageIn } from "../../../lib/postgres/backend_messages.ts";

/** A message as in PostgreSQL's documentation, "Message Formats". */
function message(type: string, body: string): Buffer {
  const bytes = Buffer.alloc(5 + Buffer.byteLength(body));
  bytes.write(type);
  bytes.writeUInt32BE(4 + Buffer.byteLength(body), 1);
  bytes.write(body, 5);
  return bytes;
}

const fields = (severity: string, text: string) =>
  `S${severity}\0V${severity}\0C57P01\0M${text}\0Fpostgres.c\0\0`;
const fatal = message("E", fields("FATAL", "terminating connection"));
const warning = message("N", fields("WARNING", "aborting backup"));
const failed = message("E", fields("ERROR", "division by zero"));
const ready = message("Z", "I");

Deno.test("the reason why a session ends is found wherever it comes, and nothing else is taken for it", () => {
  for (
    const chunks of [
      [fatal],
      [fatal, warning],
      [warning, fatal],
      [failed, ready, fatal],
    ]
  ) assert.equal(fatalMessageIn(Buffer.concat(chunks)), "terminating connection");
  for (const chunk of [Buffer.alloc(0), warning, Buffer.concat([failed, ready])]) {
    assert.equal(fatalMessageIn(chunk), undefined);
  }
  const translated = message("E", "SFATAL\0VFATAL\0MVerbindung wird beendet\0\0");
  assert.equal(fatalMessageIn(translated), "Verbindung wird beendet");
});

Deno.test("bytes that are no messages, or only a part of one, are passed over", () => {
  for (let cut = 0; cut < fatal.length; cut++) {
    assert.equal(fatalMessageIn(fatal.subarray(0, cut)), undefined);
    fatalMessageIn(fatal.subarray(cut + 1));
  }
  assert.equal(fatalMessageIn(new Uint8Array(100)), undefined);
  assert.equal(fatalMessageIn(new Uint8Array(100).fill(0x45)), undefined);
});
