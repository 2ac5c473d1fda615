/** Where and how to connect: libpq's parameters, environment variables, service and password files. */
import { homedir, userInfo } from "node:os";
import { join } from "node:path";
import {
  ConninfoError,
  type ConninfoWords,
  isConnectionUri,
  parseConninfo,
  quoteConninfoValue,
  shownWord,
} from "./conninfo_text.ts";
import { environmentVariables, knownKeywords } from "./conninfo_keywords.ts";
import { statOptional } from "./optional_file.ts";
import { findPassword } from "./password_file.ts";
import { readService } from "./service_file.ts";

export { ConninfoError } from "./conninfo_text.ts";

export const sslModes = [
  "disable",
  "allow",
  "prefer",
  "require",
  "verify-ca",
  "verify-full",
] as const;
export type SslMode = (typeof sslModes)[number];

export const targetSessions = [
  "any",
  "read-write",
  "read-only",
  "primary",
  "standby",
  "prefer-standby",
] as const;
export type TargetSession = (typeof targetSessions)[number];

/** One place to try. */
export interface ConnectionHost {
  /** `socket`: a directory with the server's Unix socket. */
  readonly kind: "socket" | "tcp";
  /** Directory of the socket, or host name (of the certificate too). */
  readonly host: string;
  /** What to connect to when it is not `host`: a numeric address. */
  readonly address: string | undefined;
  readonly port: number;
  readonly password: string | undefined;
}

/** Files and wishes for TLS; paths are absent when neither given nor in the default place. */
export interface TlsParameters {
  readonly mode: SslMode;
  /** `system`: the runtime's own authorities. */
  readonly rootCertificate: string | undefined;
  readonly certificate: string | undefined;
  readonly key: string | undefined;
  readonly keyPassword: string | undefined;
  /** Tell the server the host name (SNI). */
  readonly sni: boolean;
  /** Without asking first, PostgreSQL 17 and newer. */
  readonly direct: boolean;
  /** `TLSv1.2` … */
  readonly minVersion: TlsVersion | undefined;
  readonly maxVersion: TlsVersion | undefined;
}

export type TlsVersion = "TLSv1" | "TLSv1.1" | "TLSv1.2" | "TLSv1.3";

export interface ConnectionParameters {
  /** In the order of trial; at least one. */
  readonly hosts: readonly ConnectionHost[];
  readonly user: string;
  readonly database: string;
  readonly tls: TlsParameters;
  readonly applicationName: string | undefined;
  /** Seconds for each host; 0 for no limit. */
  readonly connectTimeout: number;
  readonly targetSession: TargetSession;
  /** Sent to the server as they are: `options`, `TimeZone` … */
  readonly runtime: Readonly<Record<string, string>>;
  readonly keepAlive: boolean;
  /** Seconds; the system's default when absent. */
  readonly keepAliveIdle: number | undefined;
  /** What the user should know: a password file that others can read … */
  readonly warnings: readonly string[];
}

/** The options of `barman-cloud-backup`. */
export interface ConnectionOptions {
  /** `-d`; a name or a whole connection string. */
  readonly dbname?: string | undefined;
  readonly host?: string | undefined;
  readonly port?: string | undefined;
  readonly user?: string | undefined;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** Seconds for a host when nothing is said; libpq itself would wait as long as the system does. */
const defaultConnectTimeout = 30;
const defaultPort = 5432;
/** Debian's and Red Hat's place, then PostgreSQL's own. */
export const defaultSocketDirectories: readonly string[] = ["/var/run/postgresql", "/tmp"];

/**
 * The connection string that the command line means: `-d` as a whole when it has a `=` or is a URI
 * or is empty, else the options that are not empty. Without `-d` the database is `postgres`.
 */
export function connectionString(options: ConnectionOptions): string {
  const dbname = options.dbname ?? "postgres";
  if (dbname === "" || dbname.includes("=") || isConnectionUri(dbname)) return dbname;
  const { host, port, user } = options;
  return Object.entries({ host, port, user, dbname })
    .filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== "")
    .map(([keyword, value]) => `${keyword}=${quoteConninfoValue(value)}`)
    .join(" ");
}

/**
 * All that is needed to connect, from a connection string, then the service file, then the
 * environment, then the defaults.
 *
 * @param text `keyword=value` pairs or a `postgresql://` URI
 * @throws ConninfoError for an unknown keyword, a value that is none, a service that is not defined,
 *   or something libpq can do and we can't
 */
export function resolveConnection(text: string, env: Environment): ConnectionParameters {
  const home = env["HOME"] ?? homeOfUser();
  const warnings: string[] = [];
  const words = allWords(parseConninfo(text), env, home);
  const given = (keyword: string): string | undefined => words.get(keyword) || undefined;

  const user = given("user") ?? systemUser();
  const database = given("dbname") ?? user;
  const hosts = hostsOf(words).map((host): ConnectionHost => {
    const password = given("password") ?? findPassword({
      path: given("passfile") ?? join(home, ".pgpass"),
      // libpq looks up the default socket directory under this name.
      host: host.isDefault ? "localhost" : host.host,
      port: host.port,
      database,
      user,
      warn: (message) => warnings.includes(message) || warnings.push(message),
    });
    return { kind: host.kind, host: host.host, address: host.address, port: host.port, password };
  });
  if (choice(words, "load_balance_hosts", ["disable", "random"], "disable") === "random") {
    hosts.sort(() => Math.random() - 0.5);
  }
  refuseWhatWeCannot(words);
  const idle = integer(words, "keepalives_idle", 0);
  return {
    hosts,
    user,
    database,
    tls: tlsOf(words, home),
    applicationName: given("application_name") ?? given("fallback_application_name"),
    connectTimeout: connectTimeout(words),
    targetSession: choice(words, "target_session_attrs", targetSessions, "any"),
    runtime: runtimeParameters(words, env),
    keepAlive: integer(words, "keepalives", 1) !== 0,
    keepAliveIdle: idle > 0 ? idle : undefined,
    warnings,
  };
}

/** Explicit words, then the service's, then the environment's. An empty value counts as given. */
function allWords(explicit: ConninfoWords, env: Environment, home: string): ConninfoWords {
  for (const keyword of explicit.keys()) {
    if (!knownKeywords.has(keyword)) {
      throw new ConninfoError(`Invalid connection option ${shownWord(keyword)}`);
    }
  }
  const words: ConninfoWords = new Map(explicit);
  const addMissing = (keyword: string, value: string) => {
    if (!words.has(keyword)) words.set(keyword, value);
  };
  const service = words.get("service") ?? env["PGSERVICE"];
  if (service !== undefined && service !== "") {
    const file = words.get("servicefile") ?? env["PGSERVICEFILE"];
    const found = readService(service, { file, home, systemDirectory: env["PGSYSCONFDIR"] });
    for (const [keyword, value] of found) addMissing(keyword, value);
  }
  for (const [variable, keyword] of environmentVariables) {
    const value = env[variable];
    if (value !== undefined) addMissing(keyword, value);
  }
  // What is obsolete: only when nothing else is said.
  if (env["PGREQUIRESSL"]?.startsWith("1")) addMissing("sslmode", "require");
  return words;
}

interface HostPlace {
  readonly kind: "socket" | "tcp";
  readonly host: string;
  readonly address: string | undefined;
  readonly port: number;
  readonly isDefault: boolean;
}

function hostsOf(words: ConninfoWords): HostPlace[] {
  const list = (keyword: string) => (words.get(keyword) ?? "").split(",").map((x) => x.trim());
  const names = list("host");
  const addresses = list("hostaddr");
  const ports = list("port");
  const hasAddresses = addresses.some((address) => address !== "");
  const count = hasAddresses ? addresses.length : names.length;
  if (hasAddresses && names.some((name) => name !== "") && names.length !== count) {
    throw new ConninfoError(
      `Invalid connection options: ${names.length} host names and ${count} hostaddr values`,
    );
  }
  if (ports.length !== 1 && ports.length !== count) {
    throw new ConninfoError(
      `Invalid connection options: ${ports.length} ports for ${count} ${
        count === 1 ? "host" : "hosts"
      }`,
    );
  }
  return Array.from({ length: count }, (_, index): HostPlace[] => {
    const name = names[index] ?? "";
    const address = addresses[index] || undefined;
    const port = portNumber((ports.length === 1 ? ports[0] : ports[index]) ?? "");
    if (name === "" && address === undefined) {
      return presentSockets(port).map((host) => ({
        kind: "socket",
        host,
        address: undefined,
        port,
        isDefault: true,
      }));
    }
    if (name.startsWith("@")) {
      throw new ConninfoError(
        `Invalid host "${name}": abstract sockets are not supported, use a directory`,
      );
    }
    const kind = address === undefined && name.startsWith("/") ? "socket" : "tcp";
    const isDefault = kind === "socket" && defaultSocketDirectories.includes(name);
    return [{ kind, host: name || (address ?? ""), address, port, isDefault }];
  }).flat();
}

/** The default directories that have the socket; all of them when none has. */
function presentSockets(port: number): readonly string[] {
  const present = defaultSocketDirectories.filter((directory) =>
    statOptional(join(directory, `.s.PGSQL.${port}`)) !== undefined
  );
  return present.length > 0 ? present : defaultSocketDirectories;
}

function portNumber(text: string): number {
  if (text === "") return defaultPort;
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65535) {
    // Behind a password with a slash in it, not encoded, stands its first half here.
    const shown = /^\d{1,20}$/.test(text) ? ` "${text}"` : "";
    throw new ConninfoError(`Invalid port number${shown}: it must be 1 to 65535`);
  }
  return port;
}

/** A uid that the system does not know has no home, so no files in it (a container may run under any uid). */
function homeOfUser(): string {
  try {
    return homedir();
  } catch {
    return "/";
  }
}

function systemUser(): string {
  try {
    return userInfo().username;
  } catch {
    throw new ConninfoError(
      "Cannot tell the user to connect as: the operating system has no name for this uid; " +
        "give one with --user or PGUSER",
    );
  }
}

function connectTimeout(words: ConninfoWords): number {
  if ((words.get("connect_timeout") ?? "") === "") return defaultConnectTimeout;
  const seconds = integer(words, "connect_timeout", defaultConnectTimeout);
  // As libpq has it: 1 is too short, zero and negative mean no limit.
  return seconds <= 0 ? 0 : Math.max(2, seconds);
}

function tlsOf(words: ConninfoWords, home: string): TlsParameters {
  const file = (keyword: string, name: string): string | undefined => {
    const path = words.get(keyword) || undefined;
    if (path !== undefined) return path;
    const usual = join(home, ".postgresql", name);
    return statOptional(usual) === undefined ? undefined : usual;
  };
  const rootCertificate = file("sslrootcert", "root.crt");
  const system = rootCertificate === "system";
  const asked = choice(words, "sslmode", sslModes, system ? "verify-full" : "prefer");
  if (system && asked !== "verify-full") {
    throw new ConninfoError(
      `Invalid sslmode "${asked}" with sslrootcert=system: must be verify-full`,
    );
  }
  if (asked.startsWith("verify-") && rootCertificate === undefined) {
    throw new ConninfoError(
      `Cannot verify the server's certificate with sslmode=${asked}: there is no file ` +
        `${join(home, ".postgresql", "root.crt")}; name the authorities with sslrootcert, or use ` +
        "sslrootcert=system",
    );
  }
  // A root certificate makes `require` verify, as libpq does.
  const mode = asked === "require" && rootCertificate !== undefined ? "verify-ca" : asked;
  const withCertificate =
    choice(words, "sslcertmode", ["disable", "allow", "require"], "allow") !== "disable";
  const direct = choice(words, "sslnegotiation", ["postgres", "direct"], "postgres") === "direct";
  if (direct && !["require", "verify-ca", "verify-full"].includes(mode)) {
    throw new ConninfoError(
      `Invalid sslmode "${asked}" with sslnegotiation=direct: must be require, verify-ca or verify-full`,
    );
  }
  return {
    mode,
    rootCertificate,
    certificate: withCertificate ? file("sslcert", "postgresql.crt") : undefined,
    key: withCertificate ? file("sslkey", "postgresql.key") : undefined,
    keyPassword: words.get("sslpassword") || undefined,
    sni: words.get("sslsni") !== "0",
    direct,
    minVersion: tlsVersion(words, "ssl_min_protocol_version"),
    maxVersion: tlsVersion(words, "ssl_max_protocol_version"),
  };
}

function tlsVersion(words: ConninfoWords, keyword: string): TlsVersion | undefined {
  const versions = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"] as const;
  const value = words.get(keyword) || undefined;
  if (value === undefined) return undefined;
  const known = versions.find((version) => version.toLowerCase() === value.toLowerCase());
  if (known === undefined) throw invalidChoice(keyword, value, versions);
  return known;
}

/** Not knowing them would weaken what the user asked for. */
function refuseWhatWeCannot(words: ConninfoWords): void {
  const harmless: ReadonlyArray<readonly [string, readonly string[]]> = [
    ["channel_binding", ["disable", "prefer"]],
    ["gssencmode", ["disable", "prefer"]],
    ["require_auth", []],
    ["requirepeer", []],
    ["sslcrl", []],
    ["sslcrldir", []],
    ["replication", ["0", "no", "off", "false"]],
    ["scram_client_key", []],
    ["scram_server_key", []],
    ["oauth_issuer", []],
  ];
  for (const [keyword, fine] of harmless) {
    const value = words.get(keyword) ?? "";
    if (value === "" || fine.includes(value)) continue;
    throw new ConninfoError(
      `Connection option ${keyword} is not supported${
        fine.length > 0 ? `, except as ${fine.join(" or ")}` : ""
      }`,
    );
  }
}

function runtimeParameters(words: ConninfoWords, env: Environment): Record<string, string> {
  const runtime: Record<string, string> = {};
  const options = words.get("options");
  if (options) runtime["options"] = options;
  if (env["PGTZ"]) runtime["TimeZone"] = env["PGTZ"];
  return runtime;
}

function integer(words: ConninfoWords, keyword: string, absent: number): number {
  const text = (words.get(keyword) ?? "").trim();
  if (text === "") return absent;
  if (!/^[+-]?[0-9]{1,9}$/.test(text)) {
    throw new ConninfoError(`Invalid integer "${text}" for connection option "${keyword}"`);
  }
  return Number(text);
}

function choice<T extends string>(
  words: ConninfoWords,
  keyword: string,
  choices: readonly T[],
  absent: T,
): T {
  const value = words.get(keyword);
  if (value === undefined || value === "") return absent;
  const found = choices.find((one) => one === value);
  if (found === undefined) throw invalidChoice(keyword, value, choices);
  return found;
}

function invalidChoice(keyword: string, value: string, choices: readonly string[]): ConninfoError {
  return new ConninfoError(
    `Invalid ${keyword} value "${value}": must be one of ${choices.join(", ")}`,
  );
}
