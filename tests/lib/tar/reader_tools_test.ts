/** Archives made by Python's tarfile (Barman's writer) and GNU tar. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createReadStream } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TarEntry, TarError, TarReader } from "../../../lib/tar/reader.ts";
import { skipUnless } from "../../skips.ts";

const works = (program: string) => spawnSync(program, ["--version"]).status === 0;
const isGnuTar = String(spawnSync("tar", ["--version"]).stdout).includes("GNU tar");
const withoutPython = skipUnless(
  works("python3"),
  "tar archives written by Python's tarfile",
  "apt-get install python3",
);
const withoutTar = skipUnless(isGnuTar, "tar archives written by GNU tar", "apt-get install tar");

/** What is in the archive, as Python tells it: one line of JSON. */
const PYTHON = `
import io, json, os, random, sys, tarfile
path, form, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rnd = random.Random(seed)
formats = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}
told = []
with tarfile.open(path, "w", format=formats[form], errors="surrogateescape") as tar:
    for number in range(40):
        length = rnd.choice([3, 30, 99, 100, 101, 140, 400])
        if form == "ustar": length = min(length, 80)
        parts = "".join(rnd.choice("abc/d\\u00e9\\udcff ") for _ in range(length)).strip("/")
        info = tarfile.TarInfo(f"m{number}/" + parts.replace("//", "/x").rstrip("/") + "z")
        info.mode = rnd.randrange(0o10000)
        info.uid = rnd.choice([0, 26, 2097151, 2097152, 4294967294 if form != "ustar" else 7])
        if form == "ustar": info.uid = min(info.uid, 2097151)
        info.gid = rnd.randrange(100000)
        info.uname, info.gname = rnd.choice(["", "postgres", "b\\u00f6se"]), rnd.choice(["", "dba"])
        info.mtime = rnd.choice([0, 1795378770]) if form != "pax" else rnd.choice([0, 1795378770.823295])
        kind = rnd.choice("fffds1")
        data = b""
        if kind == "f":
            data = rnd.randbytes(rnd.choice([0, 1, 511, 512, 513, 8192, 100000]))
            info.size = len(data)
        elif kind == "d": info.type = tarfile.DIRTYPE
        else:
            info.type = tarfile.SYMTYPE if kind == "s" else tarfile.LNKTYPE
            info.linkname = "t/" * (rnd.choice([1, 40, 90]) if form != "ustar" else 20) + "x"
        tar.addfile(info, io.BytesIO(data))
        told.append([kind, os.fsencode(info.name).hex(), info.linkname, len(data), sum(data), info.mode,
                     info.uid, info.gid, info.uname, info.gname, info.mtime])
print(json.dumps(told))
`;

interface Summed extends TarEntry {
  readonly sum: number;
}

async function read(path: string): Promise<Summed[]> {
  const reader = new TarReader(createReadStream(path, { highWaterMark: 5000 }));
  const members: Summed[] = [];
  for (;;) {
    const entry = await reader.next();
    if (entry === null) return members;
    let sum = 0;
    for (;;) {
      const chunk = await reader.read();
      if (chunk === null) break;
      for (let i = 0; i < chunk.length; i++) sum += chunk[i] ?? 0;
    }
    members.push({ ...entry, sum });
  }
}

async function inDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-tar-"));
  try {
    await use(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

function run(program: string, ...words: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  return stdout;
}

for (const form of ["pax", "gnu", "ustar"]) {
  Deno.test({
    name: `reader: archives of Python's tarfile, ${form}`,
    ignore: withoutPython,
    fn: () =>
      inDirectory(async (directory) => {
        for (let seed = 1; seed <= 2; seed++) {
          const path = join(directory, "a.tar");
          const told: unknown[] = JSON.parse(
            run("python3", "-c", PYTHON, path, form, String(seed)),
          );
          const letters: Record<string, string> = {
            "file": "f",
            "directory": "d",
            "symlink": "s",
            "hard-link": "1",
          };
          const hex = (name: string) =>
            [...name].map((char) => {
              const code = char.codePointAt(0) ?? 0;
              return code >= 0xdc80 && code <= 0xdcff
                ? (code - 0xdc00).toString(16)
                : Buffer.from(char).toString("hex");
            }).join("");
          const members = (await read(path)).map((member) => [
            letters[member.type],
            hex(member.name),
            member.linkTarget,
            member.size,
            member.sum,
            member.mode,
            member.uid,
            member.gid,
            member.userName,
            member.groupName,
            member.mtime,
          ]);
          assert.equal(members.length, 40);
          assert.deepEqual(members, told);
        }
      }),
  });
}

for (const form of ["v7", "oldgnu", "gnu", "ustar", "pax"]) {
  Deno.test({
    name: `reader: archives of GNU tar, ${form}`,
    ignore: withoutTar,
    fn: () =>
      inDirectory(async (directory) => {
        const path = join(directory, "a.tar");
        const long = `${"x".repeat(form === "v7" ? 30 : 90)}/${
          "y".repeat(form === "v7" ? 30 : 90)
        }`;
        const script = `mkdir -p t/base/5 t/${long}; printf hello > t/base/5/1249; : > t/empty
          head -c 70000 /dev/zero > t/${long}/big; ln -s /nowhere t/link; ln t/empty t/zz-hard
          tar --sort=name --format=${form} -C t -cf a.tar .`;
        run("sh", "-ec", `cd ${directory}; ${script}`);
        const members = new Map((await read(path)).map((member) => [member.name, member]));
        assert.equal(members.get(".")?.type, "directory");
        assert.equal(members.get("./base/5/1249")?.size, 5);
        assert.equal(members.get(`./${long}/big`)?.size, 70000);
        assert.equal(members.get("./link")?.linkTarget, "/nowhere");
        const hard = members.get("./zz-hard");
        assert.deepEqual([hard?.type, hard?.linkTarget], ["hard-link", "./empty"]);
        const whole = await readFile(path);
        assert.equal(whole.length % 10240, 0);
      }),
  });
}

Deno.test({
  name: "reader: GNU tar's sparse and multi-volume members are refused",
  ignore: withoutTar,
  fn: () =>
    inDirectory(async (directory) => {
      run("sh", "-ec", `cd ${directory}; truncate -s 10M s; echo x >> s`);
      for (
        const options of ["--format=gnu", "--format=pax", "--format=pax --sparse-version=0.1"]
      ) {
        run("sh", "-ec", `cd ${directory}; tar -S ${options} -cf a.tar s`);
        await assert.rejects(read(join(directory, "a.tar")), (error) => {
          assert(error instanceof TarError);
          assert.match(error.message, /sparse file/);
          return true;
        });
      }
    }),
});
