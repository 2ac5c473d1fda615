/** Why there was no (whole) answer, in words, from the codes of node:http, node:tls and the handler. */
import type { StoreErrorKind } from "./object_store.ts";

export interface Verdict {
  readonly kind: StoreErrorKind;
  readonly reason: string;
  readonly retryable?: boolean;
}

/**
 * @param advice what to look at for a wrong host name, and how to name certificates
 * @returns undefined when it is no failure of the transport.
 */
export function judgeTransport(
  code: string,
  message: string,
  advice: { readonly host: string; readonly tls: string },
): Verdict | undefined {
  const again = (reason: string): Verdict => ({ kind: "unreachable", reason });
  const final = (reason: string): Verdict => ({ kind: "unreachable", reason, retryable: false });
  switch (code) {
    case "ENOTFOUND":
      return again(`its host name is not known (DNS); ${advice.host}`);
    case "EAI_AGAIN":
      return again("its host name could not be looked up (DNS)");
    case "ECONNREFUSED":
    case "ConnectionRefused":
      return again("connection refused: nothing listens there, or a firewall refuses");
    case "ECONNRESET":
    case "EPIPE":
    case "ECONNABORTED":
    case "ERR_STREAM_PREMATURE_CLOSE":
    case "ConnectionClosed":
      return again("the connection was cut before the whole answer was there");
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "ENETDOWN":
    case "EADDRNOTAVAIL":
      return again("there is no route to its host");
    case "ETIMEDOUT":
      return again("no answer in time");
    case "CONNECT_TIMEOUT":
    case "READ_TIMEOUT":
      return again(`no answer in time (${message})`);
    case "PROXY_UNREACHABLE":
      return again(`${message}; look at HTTP_PROXY and HTTPS_PROXY`);
    case "EMFILE":
    case "ENFILE":
      return again("too many open files; raise the limit (ulimit -n)");
    case "PARSE_ERROR":
      return again("the answer came incomplete or is no XML");
  }
  if (/CERT|UNABLE_TO_|SELF_SIGNED|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE/.test(code)) {
    return final(`its certificate is not accepted (${message}); ${advice.tls}`);
  }
  if (/^(EPROTO|ERR_SSL|ERR_TLS|HPE_)/.test(code)) {
    return final(`no TLS or HTTP was spoken there (${message}); look at http:// or https://`);
  }
  if (/the proxy answered/.test(message)) return final(message);
  if (/checksum mismatch/i.test(message)) return again(`the data came damaged (${message})`);
  if (/certificate|unable to verify/i.test(message)) {
    return final(`its certificate is not accepted (${message}); ${advice.tls}`);
  }
  if (
    /connection lost|stream closed|aborted|socket hang up|terminated|Data corruption/i.test(message)
  ) {
    return again("the connection was cut before the whole answer was there");
  }
  return undefined;
}
