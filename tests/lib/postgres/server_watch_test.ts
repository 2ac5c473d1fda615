import assert from "node:assert/strict";
import { watchServer } from "../../../lib/postgres/backend_messages.ts";

const encoder = new TextEncoder();

function message(type: string, ...parts: (string | number[])[]): Uint8Array {
  const body = parts.flatMap((part) => typeof part === "string" ? [...encoder.encode(part)] : part);
  const bytes = Uint8Array.from([type.charCodeAt(0), 0, 0, 0, 0, ...body]);
  new DataView(bytes.buffer).setUint32(1, 4 + body.length);
  return bytes;
}

/** What is said of these bytes, in one piece and byte by byte. */
function verdict(...messages: readonly Uint8Array[]): string[] {
  const bytes = Uint8Array.from(messages.flatMap((each) => [...each]));
  const outcomes = [bytes.length, 1].map((size) => {
    const said: string[] = [];
    const watch = watchServer({
      onPasswordAsked: () => said.push("password"),
      onUnknownAuthentication: (method) => said.push(method),
      onNonsense: (reason) => said.push(reason),
    });
    for (let at = 0; at < bytes.length; at += size) watch.push(bytes.subarray(at, at + size));
    if (watch.key !== undefined) said.push(`key ${watch.key.processId} ${watch.key.secret}`);
    return said;
  });
  assert.deepEqual(outcomes[0], outcomes[1]);
  return outcomes[0] ?? [];
}

const OK = message("R", [0, 0, 0, 0]);
const KEY = message("K", [0, 0, 4, 210], [0, 0, 0, 7]);
const READY = message("Z", "I");
const challenge = (text: string) => message("R", [0, 0, 0, 11], text);

Deno.test("the messages of a session's start are followed", () => {
  assert.deepEqual(verdict(OK, message("S", "server_version\u000018\0"), KEY, READY), [
    "key 1234 7",
  ]);
  assert.deepEqual(verdict(message("R", [0, 0, 0, 5, 1, 2, 3, 4])), ["password"]);
  assert.deepEqual(verdict(message("R", [0, 0, 0, 7])), ["GSSAPI"]);
  assert.deepEqual(verdict(challenge("r=abc,s=c2FsdA==,i=4096")), []);
});

Deno.test("what would end or stop the client library is noticed before it gets there", () => {
  const cases: [RegExp, ...Uint8Array[]][] = [
    // Lengths that lie: found by fuzzing.
    [/without a length/, Uint8Array.of(0x52, 0, 0, 0, 0)],
    [/damaged request/, message("R")],
    [/damaged request/, message("R", [0, 0, 0, 5])],
    [/damaged key/, OK, message("K", [1, 2])],
    [/far too long/, Uint8Array.of(0x52, 0x7f, 0xff, 0xff, 0xff)],
    [/far too long/, OK, READY, Uint8Array.of(0x44, 0xff, 0xff, 0xff, 0xff)],
    // A column name that never ends keeps the library busy for ever.
    [/damaged description/, OK, READY, message("T", [0, 1], "name")],
    [/damaged description/, OK, READY, message("T", [0, 2], "x\0", new Array(18).fill(0))],
    [/damaged description/, OK, READY, message("T")],
    // A password check without numbers ends the process, one of too many rounds stops it.
    [/damaged request/, challenge("")],
    [/damaged request/, challenge("r=abc,s=c2FsdA==,i=x")],
    [/damaged request/, challenge("i=4096")],
    [/waste time/, challenge("r=abc,s=c2FsdA==,i=2000000000")],
    [/unknown message/, encoder.encode("HTTP/1.1 400 Bad Request\r\n")],
    [/unknown message/, OK, READY, message("\0")],
    [/unknown message/, OK, message("D", [0, 0])],
  ];
  for (const [pattern, ...messages] of cases) {
    const said = verdict(...messages);
    assert.match(said.at(-1) ?? "", pattern, String(messages));
  }
});
