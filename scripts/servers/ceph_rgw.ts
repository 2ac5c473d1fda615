/**
 * A throwaway Ceph RADOS Gateway (one monitor, one OSD, one gateway) on free ports of 127.0.0.1, for
 * tests, demos and benchmarks. Needs the packages `radosgw ceph-mon ceph-osd` (Debian, Ubuntu), no
 * root, no container. Everything lives in one temporary directory; nothing is left behind by `stop`.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { join } from "node:path";

export interface CephRgwOptions {
  /** `memory` is fastest and holds 4 GiB; `file` keeps data on disk, sparse. Default `memory`. */
  readonly storage?: "memory" | "file" | undefined;
  /** Bytes that `file` storage may hold; 20 GiB when absent. */
  readonly capacity?: number | undefined;
  /** Serve HTTPS as well, with a certificate of an own authority (needs the `openssl` command). */
  readonly tls?: boolean | undefined;
  /** Smallest multipart part, in bytes; RGW's own 5 MiB when absent. */
  readonly minPartSize?: number | undefined;
  /** Port of the plain endpoint; a free one when absent. */
  readonly port?: number | undefined;
}

export interface CephRgw {
  /** `http://127.0.0.1:PORT`. The host name `localhost` serves virtual-host style as well. */
  readonly endpoint: string;
  /** `https://localhost:PORT`, with the option `tls`. */
  readonly tlsEndpoint: string | undefined;
  /** File with the certificate of the authority behind `tlsEndpoint`. */
  readonly caFile: string | undefined;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** A key id that the gateway's testing KMS knows, for `aws:kms`. */
  readonly kmsKeyId: string;
  /** Add a user with no rights on the first one's buckets. */
  addUser(): Promise<{ readonly accessKeyId: string; readonly secretAccessKey: string }>;
  /** Run `radosgw-admin` with these arguments and return what it prints. */
  admin(...args: string[]): Promise<string>;
  /** End the three processes and remove the directory. */
  stop(): Promise<void>;
}

/** The line that installs what `startCephRgw` needs. */
export const CEPH_RGW_INSTALL =
  "apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd";

/** Whether the programs are on PATH. */
export async function cephRgwInstalled(): Promise<boolean> {
  for (const program of ["ceph-mon", "ceph-osd", "ceph", "radosgw", "radosgw-admin"]) {
    if (!(await onPath(program))) return false;
  }
  return true;
}

/**
 * Start the gateway and wait (up to a minute) until it answers.
 * @throws {Error} with the end of the daemons' logs when something does not come up.
 */
export async function startCephRgw(options: CephRgwOptions = {}): Promise<CephRgw> {
  let failure: unknown;
  // A port found free may be taken before the daemon binds it: then start again on other ones.
  for (let attempt = 1; attempt <= 3; attempt++) {
    try {
      return await startOnce(options);
    } catch (error) {
      failure = error;
      if (options.port !== undefined) break;
    }
  }
  throw failure;
}

async function startOnce(options: CephRgwOptions): Promise<CephRgw> {
  // Unix sockets live below; their paths are limited to 107 bytes, so the name is short.
  const directory = await Deno.makeTempDir({ prefix: "rgw-" });
  const conf = join(directory, "ceph.conf");
  const processes: Daemon[] = [];
  let stopped = false;
  const stop = async () => {
    if (stopped) return;
    stopped = true;
    for (const daemon of processes.reverse()) await daemon.stop();
    await Deno.remove(directory, { recursive: true });
  };

  try {
    const port = options.port ?? freePort();
    const tlsPort = options.tls === true ? freePort() : undefined;
    const certificate = options.tls === true ? await makeCertificate(directory) : undefined;
    const fsid = randomUUID();
    const monPort = freePort();
    await Deno.writeTextFile(
      conf,
      configuration({ directory, fsid, monPort, port, tlsPort, certificate, options }),
    );
    const tool = (program: string, ...args: string[]) =>
      runTool(program, ["-c", conf, ...args], directory);

    await Deno.mkdir(join(directory, "mon"));
    // Without a map of its own the monitor would take the default ports.
    const monmap = join(directory, "monmap");
    const monAddress = `[v2:127.0.0.1:${monPort}/0]`;
    await tool("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monAddress, monmap);
    await tool("ceph-mon", "--mkfs", "-i", "a", "--fsid", fsid, "--monmap", monmap);
    processes.push(startDaemon("ceph-mon", ["-c", conf, "-f", "-i", "a"], directory));
    const osdFsid = randomUUID();
    const osdId = (await tool("ceph", "osd", "new", osdFsid)).trim();
    if (osdId !== "0") throw new Error(`Cannot make the OSD: the monitor numbered it ${osdId}`);
    await Deno.mkdir(join(directory, "osd"));
    await tool("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osdFsid, "--no-mon-config");
    processes.push(startDaemon("ceph-osd", ["-c", conf, "-f", "-i", "0"], directory));

    const admin = (...args: string[]) => tool("radosgw-admin", ...args);
    const makeUser = async () => {
      const accessKeyId = randomBytes(10).toString("hex").toUpperCase();
      const secretAccessKey = randomBytes(20).toString("hex");
      const uid = `u${accessKeyId.toLowerCase()}`;
      await admin(
        ...["user", "create", `--uid=${uid}`, `--display-name=${uid}`],
        ...[`--access-key=${accessKeyId}`, `--secret-key=${secretAccessKey}`],
      );
      return { accessKeyId, secretAccessKey };
    };
    // The gateway makes the same pools: start it after the first user, or the two wait for each other.
    const user = await makeUser();
    processes.push(startDaemon("radosgw", ["-c", conf, "-f", "-n", "client.rgw"], directory));
    const endpoint = `http://127.0.0.1:${port}`;
    await waitForAnswer(endpoint, processes);

    return {
      ...user,
      endpoint,
      tlsEndpoint: tlsPort === undefined ? undefined : `https://localhost:${tlsPort}`,
      caFile: certificate?.caFile,
      kmsKeyId: "testkey-1",
      addUser: makeUser,
      admin,
      stop,
    };
  } catch (error) {
    const logs = await logTails(directory);
    await stop();
    throw new Error(`Cannot start Ceph RGW: ${messageOf(error)}${logs}`, { cause: error });
  }
}

interface ConfigurationInput {
  readonly directory: string;
  readonly fsid: string;
  readonly monPort: number;
  readonly port: number;
  readonly tlsPort: number | undefined;
  readonly certificate: Certificate | undefined;
  readonly options: CephRgwOptions;
}

function configuration(input: ConfigurationInput): string {
  const { directory, options, certificate } = input;
  const capacity = options.capacity ?? 20 * 1024 ** 3;
  const store = options.storage === "file"
    ? `osd objectstore = bluestore
bluestore block create = true
bluestore block size = ${capacity}
bluestore fsck on mount = false`
    : "osd objectstore = memstore\nmemstore device bytes = 4294967296";
  const tls = input.tlsPort === undefined || certificate === undefined
    ? ""
    : ` ssl_endpoint=127.0.0.1:${input.tlsPort} ssl_certificate=${certificate.certificateFile}` +
      ` ssl_private_key=${certificate.keyFile}`;
  const minPartSize = options.minPartSize === undefined
    ? ""
    : `rgw multipart min part size = ${options.minPartSize}\n`;
  return `[global]
fsid = ${input.fsid}
mon host = [v2:127.0.0.1:${input.monPort}/0]
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr1 = false
ms bind ipv6 = false
run dir = ${directory}
admin socket = ${directory}/$name.$pid.asok
pid file = ${directory}/$name.pid
log file = ${directory}/$name.log
crash dir = ${directory}/crash
mon cluster log file = ${directory}/cluster.log
log to stderr = false
mon data = ${directory}/mon
osd data = ${directory}/osd
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd max object name len = 256
mon allow pool size one = true
mon allow pool delete = true
mon max pg per osd = 1000
mon data avail crit = 0
mon data avail warn = 0
mon warn on pool no redundancy = false
auth allow insecure global id reclaim = true
paxos propose interval = 0.02
paxos min wait = 0.01
${store}

[osd]
public addr = 127.0.0.1
cluster addr = 127.0.0.1

[client.rgw]
ms mon client mode = crc
rgw data = ${directory}/rgw
rgw frontends = beast endpoint=127.0.0.1:${input.port} tcp_nodelay=1${tls}
rgw dns name = localhost
rgw enable usage log = false
rgw enable ops log = false
rgw gc obj min wait = 1
rgw gc processor period = 1
rgw gc processor max time = 5
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = testkey-1=${randomBytes(32).toString("base64")}
${minPartSize}`;
}

interface Certificate {
  readonly caFile: string;
  readonly certificateFile: string;
  readonly keyFile: string;
}

/** An authority and a certificate for localhost and 127.0.0.1, both valid for two days. */
async function makeCertificate(directory: string): Promise<Certificate> {
  const at = (name: string) => join(directory, name);
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await runTool("openssl", [
    ...["req", "-x509", ...key, "-days", "2", "-subj", "/CN=Test authority"],
    ...["-keyout", at("ca.key"), "-out", at("ca.pem")],
  ], directory);
  await runTool("openssl", [
    ...["req", ...key, "-subj", "/CN=localhost"],
    ...["-keyout", at("server.key"), "-out", at("server.csr")],
  ], directory);
  await Deno.writeTextFile(at("server.ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
  await runTool("openssl", [
    ...["x509", "-req", "-in", at("server.csr"), "-CA", at("ca.pem"), "-CAkey", at("ca.key")],
    ...["-CAcreateserial", "-days", "2", "-extfile", at("server.ext"), "-out", at("server.pem")],
  ], directory);
  return { caFile: at("ca.pem"), certificateFile: at("server.pem"), keyFile: at("server.key") };
}

interface Daemon {
  readonly program: string;
  running(): boolean;
  stop(): Promise<void>;
}

/** Starts in the foreground as our child; `setpriv` ends it too when we are killed. */
function startDaemon(program: string, args: string[], directory: string): Daemon {
  const child = new Deno.Command("setpriv", {
    args: ["--pdeathsig", "KILL", program, ...args],
    cwd: directory,
    env: environment(directory),
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  let running = true;
  const ended = child.status.then(() => {
    running = false;
  });
  return {
    program,
    running: () => running,
    stop: async () => {
      // Nothing is to be kept, so no orderly shutdown, which takes seconds.
      if (running) child.kill("SIGKILL");
      await ended;
    },
  };
}

async function waitForAnswer(endpoint: string, daemons: readonly Daemon[]): Promise<void> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const dead = daemons.find((daemon) => !daemon.running());
    if (dead !== undefined) throw new Error(`${dead.program} ended right after its start`);
    try {
      const answer = await fetch(endpoint, { signal: AbortSignal.timeout(2000) });
      await answer.body?.cancel();
      if (answer.ok) return;
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    if (Date.now() > deadline) throw new Error(`no good answer from ${endpoint} within a minute`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function runTool(program: string, args: string[], directory: string): Promise<string> {
  const result = await new Deno.Command(program, {
    args,
    cwd: directory,
    env: environment(directory),
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal: AbortSignal.timeout(30_000),
  }).output();
  const text = new TextDecoder();
  if (!result.success) {
    const why = text.decode(result.stderr).trim().split("\n").slice(-5).join("\n");
    throw new Error(`${program} ${args.slice(0, 6).join(" ")} gave ${result.code}: ${why}`);
  }
  return text.decode(result.stdout);
}

/** TCMALLOC's warning and Ceph's own configuration of the machine are kept out. */
function environment(directory: string): Record<string, string> {
  return { CEPH_CONF: join(directory, "ceph.conf"), HOME: directory };
}

async function logTails(directory: string): Promise<string> {
  let tails = "";
  for await (const entry of Deno.readDir(directory)) {
    if (!entry.name.endsWith(".log") || entry.name === "cluster.log") continue;
    const text = await Deno.readTextFile(join(directory, entry.name));
    tails += `\n--- ${entry.name}\n${text.split("\n").slice(-8).join("\n")}`;
  }
  return tails;
}

function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}

async function onPath(program: string): Promise<boolean> {
  for (const directory of (Deno.env.get("PATH") ?? "").split(":")) {
    try {
      const { isFile, mode } = await Deno.stat(join(directory, program));
      if (isFile && ((mode ?? 0) & 0o111) !== 0) return true;
    } catch (error) {
      // As a shell: what may not be looked at is not there either (another user's directory, after `su`).
      const { NotFound, NotADirectory, PermissionDenied } = Deno.errors;
      const isAbsent = [NotFound, NotADirectory, PermissionDenied].some((kind) =>
        error instanceof kind
      );
      if (!isAbsent) throw error;
    }
  }
  return false;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
