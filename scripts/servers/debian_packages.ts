/**
 * Debian packages that the tests can use: installed when we are root on a machine with apt, else left as they
 * are. Nothing but tests needs them.
 */
import { access } from "node:fs/promises";

export interface WantedPackage {
  readonly name: string;
  /** A file that is there once the package is. */
  readonly file: string;
}

const WANTED: readonly WantedPackage[] = [
  { name: "radosgw", file: "/usr/bin/radosgw" },
  { name: "ceph-mon", file: "/usr/bin/ceph-mon" },
  { name: "ceph-osd", file: "/usr/bin/ceph-osd" },
  // For the gateway's certificate.
  { name: "openssl", file: "/usr/bin/openssl" },
  { name: "barman-cli-cloud", file: "/usr/bin/barman-cloud-backup" },
];

const TIMEOUT_MS = 10 * 60_000;

/** Install what is missing, if we may. @returns which are there afterwards */
export async function ensureDebianPackages(
  tell: (text: string) => void,
): Promise<readonly (WantedPackage & { readonly present: boolean })[]> {
  const absent = [];
  for (const wanted of WANTED) if (!(await exists(wanted.file))) absent.push(wanted.name);
  if (absent.length > 0) {
    if (process.getuid?.() === 0 && await exists("/usr/bin/apt-get")) {
      tell(`installing ${absent.join(", ")} with apt-get`);
      await aptGet(["update"], tell);
      // One by one: a package that this release of Debian lacks must not keep the others away.
      if (!(await aptGet(["install", "-y", "--no-install-recommends", ...absent], tell))) {
        for (const name of absent) {
          await aptGet(["install", "-y", "--no-install-recommends", name], tell);
        }
      }
    } else tell(`not installed, and only root may: apt-get install ${absent.join(" ")}`);
  }
  return await Promise.all(
    WANTED.map(async (wanted) => ({ ...wanted, present: await exists(wanted.file) })),
  );
}

async function aptGet(words: readonly string[], tell: (text: string) => void): Promise<boolean> {
  const { code, stderr } = await new Deno.Command("apt-get", {
    args: ["-q", "-o", "DPkg::Lock::Timeout=120", ...words],
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdin: "null",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  }).output();
  if (code !== 0) {
    const last = new TextDecoder().decode(stderr).trim().split("\n").slice(-3).join(" | ");
    tell(`apt-get ${words.join(" ")} ended with ${code}: ${last}`);
  }
  return code === 0;
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(() => true, () => false);
}
