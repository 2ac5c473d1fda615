/** The few messages of the server that we look at beside the client library. */

/** What one needs to cancel a query of a session. */
export interface BackendKey {
  readonly processId: number;
  readonly secret: number;
}

/** What the server says until the session is ready. */
export interface StartupWatch {
  /** Takes the bytes that come from the server. */
  push(bytes: Uint8Array): void;
  readonly key: BackendKey | undefined;
}

const asksForPassword = [3, 5, 10];
const understood = [0, ...asksForPassword, 11, 12];
const authenticationNames: ReadonlyMap<number, string> = new Map([
  [2, "Kerberos"],
  [6, "SCM credentials"],
  [7, "GSSAPI"],
  [9, "SSPI"],
]);

/**
 * Follows the messages of a session's start.
 *
 * @param onPasswordAsked called when the server wants one
 * @param onUnknownAuthentication called with the name of a method that we do not have
 */
export function watchStartup(
  onPasswordAsked: () => void,
  onUnknownAuthentication: (method: string) => void,
): StartupWatch {
  let pending = new Uint8Array(0);
  let ready = false;
  let key: BackendKey | undefined;
  return {
    get key() {
      return key;
    },
    push(bytes) {
      if (ready) return;
      const joined = new Uint8Array(pending.length + bytes.length);
      joined.set(pending);
      joined.set(bytes, pending.length);
      pending = joined;
      for (;;) {
        if (pending.length < 5) return;
        const view = new DataView(pending.buffer, pending.byteOffset, pending.byteLength);
        const length = 1 + view.getUint32(1);
        if (pending.length < length) return;
        const type = String.fromCharCode(view.getUint8(0));
        if (type === "R") {
          const method = view.getUint32(5);
          if (asksForPassword.includes(method)) onPasswordAsked();
          else if (!understood.includes(method)) {
            onUnknownAuthentication(authenticationNames.get(method) ?? `number ${method}`);
          }
        } else if (type === "K") {
          key = { processId: view.getUint32(5), secret: view.getUint32(9) };
        } else if (type === "Z") {
          ready = true;
          pending = new Uint8Array(0);
          return;
        }
        pending = pending.subarray(length);
      }
    },
  };
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
