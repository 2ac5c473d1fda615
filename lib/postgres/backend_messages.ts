/**
 * The messages of the server, looked at before the client library gets them: it trusts every length and every field, so
 * that something that is no PostgreSQL server could end the process, or keep it busy for ever.
 */

/** What one needs to cancel a query of a session. */
export interface BackendKey {
  readonly processId: number;
  readonly secret: number;
}

export interface ServerWatch {
  /** Takes the bytes that come from the server. @returns false when they must not be used */
  push(bytes: Uint8Array): boolean;
  readonly key: BackendKey | undefined;
}

export interface ServerEvents {
  /** The server wants a password. */
  readonly onPasswordAsked: () => void;
  /** It wants a proof of a kind that we do not have: its name. */
  readonly onUnknownAuthentication: (method: string) => void;
  /** What comes is not PostgreSQL's protocol, and why; nothing after it is looked at. */
  readonly onNonsense: (reason: string) => void;
}

/** Bytes of all messages from one `ReadyForQuery` to the next. Our largest answer is a list of files. */
const LARGEST_ANSWER = 256 * 1024 ** 2;
/** Bytes of a message whose fields are looked at. */
const LARGEST_INSPECTED = 1024 ** 2;
/** PostgreSQL's default is 4096; each costs about a microsecond, in which nothing else happens. */
const MOST_ITERATIONS = 10_000_000;

const HEADER = 5;
/** Message types of https://www.postgresql.org/docs/current/protocol-message-formats.html that a server sends. */
const DURING_START = "RSKZENv";
const KNOWN = `${DURING_START}DdAC123tTnsGHWcIV`;
const INSPECTED = "RKT";

const asksForPassword = [3, 5, 10];
const understood = [0, ...asksForPassword, 11, 12];
const authenticationNames: ReadonlyMap<number, string> = new Map([
  [2, "Kerberos"],
  [6, "SCM credentials"],
  [7, "GSSAPI"],
  [9, "SSPI"],
]);

/** Follows the messages of a session from its start. Bounded memory, whatever comes. */
export function watchServer(events: ServerEvents): ServerWatch {
  const header = new Uint8Array(HEADER);
  let headerFilled = 0;
  let type = "";
  /** Bytes of the current message that are still to come. */
  let missing = 0;
  let body: Uint8Array | undefined;
  let answerSize = 0;
  let ready = false;
  let broken = false;
  let key: BackendKey | undefined;

  const nonsense = (reason: string) => {
    broken = true;
    events.onNonsense(reason);
  };

  const begin = () => {
    type = String.fromCharCode(header[0] ?? 0);
    const length = new DataView(header.buffer).getUint32(1);
    answerSize += length;
    const inspected = INSPECTED.includes(type);
    if (!(ready ? KNOWN : DURING_START).includes(type)) return nonsense("an unknown message");
    if (length < 4) return nonsense("a message without a length");
    if (answerSize > LARGEST_ANSWER || (inspected && length > LARGEST_INSPECTED)) {
      return nonsense("a message that is far too long");
    }
    missing = length - 4;
    body = inspected ? new Uint8Array(missing) : undefined;
  };

  const end = () => {
    headerFilled = 0;
    if (type === "Z") {
      ready = true;
      answerSize = 0;
    }
    if (body === undefined) return;
    const view = new DataView(body.buffer);
    if (type === "T") {
      if (!isRowDescription(body)) nonsense("a damaged description of rows");
    } else if (type === "K") {
      if (body.length < 8) return nonsense("a damaged key");
      key = { processId: view.getUint32(0), secret: view.getUint32(4) };
    } else if (type === "R") {
      if (body.length < 4) return nonsense("a damaged request for a password");
      const method = view.getUint32(0);
      if (method === 5 && body.length < 8) return nonsense("a damaged request for a password");
      if (method === 11) {
        const problem = challengeProblem(new TextDecoder().decode(body.subarray(4)));
        if (problem !== undefined) return nonsense(problem);
      }
      if (asksForPassword.includes(method)) events.onPasswordAsked();
      else if (!understood.includes(method)) {
        events.onUnknownAuthentication(authenticationNames.get(method) ?? `number ${method}`);
      }
    }
  };

  return {
    get key() {
      return key;
    },
    push(bytes) {
      for (let at = 0; at < bytes.length && !broken;) {
        if (headerFilled < HEADER) {
          const part = bytes.subarray(at, at + HEADER - headerFilled);
          header.set(part, headerFilled);
          headerFilled += part.length;
          at += part.length;
          if (headerFilled < HEADER) break;
          begin();
        } else {
          const part = bytes.subarray(at, at + missing);
          body?.set(part, body.length - missing);
          missing -= part.length;
          at += part.length;
        }
        if (!broken && missing === 0) end();
      }
      return !broken;
    },
  };
}

/** Names that end, and 18 bytes behind each, as many as it says. */
function isRowDescription(body: Uint8Array): boolean {
  if (body.length < 2) return false;
  const count = new DataView(body.buffer).getUint16(0);
  let at = 2;
  for (let i = 0; i < count; i++) {
    const nameEnd = body.indexOf(0, at);
    if (nameEnd < 0) return false;
    at = nameEnd + 19;
  }
  return at === body.length;
}

/** What is wrong with the server's first message of SCRAM (RFC 5802). */
function challengeProblem(text: string): string | undefined {
  const iterations = /^r=[^,]+,s=[A-Za-z0-9+/]+=*,i=([1-9]\d*)(?:,.*)?$/s.exec(text)?.[1];
  if (iterations === undefined) return "a damaged request for a password";
  return Number(iterations) <= MOST_ITERATIONS
    ? undefined
    : `a password check of ${iterations.slice(0, 20)} rounds, which is to waste time`;
}

/** The request to cancel what a session is doing; sent on a connection of its own. */
export function cancelRequest(key: BackendKey): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 16);
  view.setUint32(4, 80877102);
  view.setUint32(8, key.processId);
  view.setUint32(12, key.secret);
  return bytes;
}

/**
 * Why the server ends a session: the text of the first error in these bytes that is fatal. They have to begin with a
 * message. It may come alone, with answers before it, or with warnings behind it (a backup that is given up).
 */
export function fatalMessageIn(bytes: Uint8Array): string | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + 5 <= bytes.length;) {
    const end = at + 1 + view.getUint32(at + 1);
    if (end < at + 5 || end > bytes.length) return undefined;
    if (bytes[at] === ERROR_RESPONSE) {
      const fields = new TextDecoder().decode(bytes.subarray(at + 5, end)).split("\0");
      const field = (type: string) => fields.find((text) => text.startsWith(type))?.slice(1);
      // `V` is `S` untranslated, since PostgreSQL 9.6.
      if (["FATAL", "PANIC"].includes(field("V") ?? field("S") ?? "")) return field("M");
    }
    at = end;
  }
  return undefined;
}

/** The type byte `E`. */
const ERROR_RESPONSE = 0x45;
