import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  appendFile,
  chmod,
  mkdir,
  mkdtemp,
  readFile,
  rm,
  symlink,
  truncate,
  unlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { CompressionName } from "../../../lib/compression/table.ts";
import { archiveExtension } from "../../../lib/backup/archive_writer.ts";
import { type ClusterFiles, copyCluster, type CopyOptions } from "../../../lib/backup/copy.ts";
import { externalFiles, includedOutside } from "../../../lib/backup/external_files.ts";
import { textMember } from "../../../lib/backup/members.ts";
import { createPartUploader } from "../../../lib/backup/upload.ts";
import { serverLayout } from "../../../lib/layout.ts";
import { openStore } from "../../../providers/open.ts";
import { skipUnless } from "../../skips.ts";

const NEEDS_PYTHON = {
  ignore: skipUnless(
    spawnSync("python3", ["--version"]).status === 0,
    "reading our archives with Python's tarfile, as Barman does",
    "install python3",
  ),
};

/** A directory with a made-up cluster in `data`, and `store`. */
async function withCluster(use: (root: string) => Promise<void>): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), "copy-"));
  try {
    await makeFiles(join(root, "data"), {
      "PG_VERSION": "15\n",
      "postgresql.conf": "# settings\n",
      "base/5/1249": randomBytes(300_000),
      "base/5/t3_17000": "temporary",
      "base/5/empty": "",
      "global/pg_control": randomBytes(8192),
      "global/1262": randomBytes(8192),
      "pg_wal/000000010000000000000001": "wal",
      "pg_wal/archive_status/x.ready": "",
      "log/a/b.log": "log",
      "postmaster.pid": "1",
      "backup_label": "another's",
    });
    await mkdir(join(root, "data/pg_tblspc"));
    await use(root);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

async function makeFiles(
  root: string,
  files: Readonly<Record<string, string | Uint8Array>>,
): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    await mkdir(join(root, dirname(path)), { recursive: true });
    await writeFile(join(root, path), content);
  }
}

interface CopyCase {
  readonly tablespaces?: ClusterFiles["tablespaces"];
  readonly compression?: CompressionName;
  readonly maxArchiveSize?: number;
  readonly dataDirectory?: string;
  readonly onProgress?: CopyOptions["onProgress"];
  readonly onFile?: CopyOptions["onFile"];
  /** Done when everything else was read. */
  readonly last?: Parameters<typeof copyCluster>[1];
}

/** Copy the cluster into the store; gives the notices. */
async function copy(root: string, options: CopyCase = {}): Promise<string[]> {
  const { store } = await openStore(`file://${root}/store`, { env: {} });
  await store.createBucket();
  const notices: string[] = [];
  const onNotice = (message: string) => notices.push(message);
  const uploader = createPartUploader({
    store,
    slots: 2,
    partSize: 100_000,
    signal: new AbortController().signal,
    onNotice,
  });
  const layout = serverLayout("", "pg");
  const extension = archiveExtension(options.compression);
  try {
    await copyCluster(
      {
        dataDirectory: options.dataDirectory ?? join(root, "data"),
        tablespaces: options.tablespaces ?? [],
        majorVersion: "15",
        keepLabel: false,
      },
      options.last ?? async function* ({ owner, owners }) {
        yield textMember("backup_label", "ours\n", 0o644, owner, owners);
      },
      {
        compression: options.compression,
        level: undefined,
        maxArchiveSize: options.maxArchiveSize ?? 1e12,
        keyOf: (name, index) => layout.archive("ID", name, index, extension),
        uploader,
        totalBytes: null,
        onProgress: options.onProgress ?? (() => {}),
        onFile: options.onFile,
        onNotice,
      },
    );
    await uploader.finish();
  } finally {
    await uploader.abort();
    await store.close();
  }
  return notices;
}

interface Member {
  readonly name: string;
  readonly type: string;
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly linkname: string;
  /** SHA-256 of the content. */
  readonly sha256: string;
}

/** Members of stored archives as Python's tarfile reads them from a stream. */
function members(root: string, archive: string): Member[] {
  const script = `
import sys, tarfile, json, hashlib
out = []
mode = {"gz": "r|gz", "bz2": "r|bz2"}.get(sys.argv[1].rsplit(".", 1)[1], "r|")
with tarfile.open(fileobj=open(sys.argv[1], "rb"), mode=mode) as t:
    for m in t:
        out.append(dict(name=m.name, type=m.type.decode(), size=m.size, mode=m.mode, uid=m.uid, linkname=m.linkname,
            sha256=hashlib.sha256(t.extractfile(m).read()).hexdigest() if m.isreg() else ""))
json.dump(out, sys.stdout)
`;
  const path = join(root, "store/pg/base/ID", archive);
  const result = spawnSync("python3", ["-c", script, path], { maxBuffer: 1 << 28 });
  assert.equal(result.status, 0, String(result.stderr));
  return JSON.parse(String(result.stdout));
}

async function sha256(path: string): Promise<string> {
  return createHash("sha256").update(await readFile(path)).digest("hex");
}

Deno.test(
  "members, their order and content, without and with compression",
  NEEDS_PYTHON,
  async () => {
    for (const compression of [undefined, "gzip", "bzip2"] as const) {
      await withCluster(async (root) => {
        await chmod(join(root, "data"), 0o750);
        await copy(root, compression === undefined ? {} : { compression });
        const read = members(root, `data.${archiveExtension(compression)}`);
        const names = read.map((member) => member.name);
        assert.deepEqual([...names].sort(), [
          ".",
          "./PG_VERSION",
          "./postgresql.conf",
          "backup_label",
          "base",
          "base/5",
          "base/5/1249",
          "base/5/empty",
          "global",
          "global/1262",
          "global/pg_control",
          "log",
          "pg_tblspc",
          "pg_wal",
        ]);
        assert.deepEqual(names.slice(-2), ["global/pg_control", "backup_label"]);
        assert.equal(read[0]?.mode, 0o750);
        for (const member of read) {
          if (member.type !== "0" || member.name === "backup_label") continue;
          assert.equal(member.sha256, await sha256(join(root, "data", member.name)), member.name);
        }
        const label = read.at(-1);
        assert.deepEqual([label?.mode, label?.size], [0o644, 5]);
      });
    }
  },
);

Deno.test(
  "tablespaces: own archives, only this version, also inside the data directory",
  NEEDS_PYTHON,
  async () => {
    await withCluster(async (root) => {
      await makeFiles(root, {
        "ts1/PG_15_202209061/5/16386": "table",
        "ts1/PG_14_202107181/5/123": "old",
        "ts1/PG_15_202209061/pgsql_tmp/x": "temporary",
        "data/inside/PG_15_202209061/5/16390": "inside",
      });
      await symlink(join(root, "ts1"), join(root, "data/pg_tblspc/16384"));
      await symlink(join(root, "data/inside"), join(root, "data/pg_tblspc/16385"));
      await symlink(join(root, "data"), join(root, "pgdata"));
      const notices = await copy(root, {
        // By a link, as packages like to set it.
        dataDirectory: join(root, "pgdata"),
        tablespaces: [
          { oid: 16384, directory: join(root, "ts1") },
          { oid: 16385, directory: join(root, "pgdata/inside") },
          { oid: 16999, directory: join(root, "dropped") },
        ],
      });
      const names = (archive: string) => members(root, archive).map((member) => member.name);
      assert.deepEqual(names("16384.tar"), [
        "PG_15_202209061",
        "PG_15_202209061/5",
        "PG_15_202209061/5/16386",
      ]);
      assert.deepEqual(names("16385.tar"), [
        "PG_15_202209061",
        "PG_15_202209061/5",
        "PG_15_202209061/5/16390",
      ]);
      assert.deepEqual(names("16999.tar"), []);
      const data = names("data.tar");
      assert(data.includes("pg_tblspc") && data.includes("./PG_VERSION"));
      assert(!data.some((name) => name.startsWith("inside") || name.startsWith("pg_tblspc/")));
      assert.deepEqual(notices, ["Tablespace 16999 is not there any more: its archive is empty"]);
    });
  },
);

Deno.test("a tablespace whose files are missing fails the copy", async () => {
  await withCluster(async (root) => {
    await symlink(join(root, "gone"), join(root, "data/pg_tblspc/16384"));
    const tablespaces = [{ oid: 16384, directory: join(root, "gone") }];
    await assert.rejects(copy(root, { tablespaces }), /Cannot read tablespace 16384: .*gone/);
  });
});

Deno.test(
  "archives are split before members, each is complete, the last has control file and label",
  NEEDS_PYTHON,
  async () => {
    for (const compression of [undefined, "gzip"] as const) {
      await withCluster(async (root) => {
        for (let i = 0; i < 12; i++) {
          await makeFiles(join(root, "data"), { [`base/7/${i}`]: randomBytes(700_000) });
        }
        await copy(root, {
          maxArchiveSize: 1_000_000,
          ...(compression === undefined ? {} : { compression }),
        });
        const extension = archiveExtension(compression);
        const all: Member[][] = [members(root, `data.${extension}`)];
        for (let i = 1;; i++) {
          const archive = `data_${String(i).padStart(4, "0")}.${extension}`;
          try {
            await readFile(join(root, "store/pg/base/ID", archive));
          } catch {
            break;
          }
          all.push(members(root, archive));
        }
        assert(all.length >= 3, `${all.length} archives`);
        const names = all.flat().map((member) => member.name);
        assert.equal(new Set(names).size, names.length);
        assert.equal(names.filter((name) => name.startsWith("base/7/")).length, 12);
        assert.deepEqual(names.slice(-2), ["global/pg_control", "backup_label"]);
        for (const [index, archive] of all.entries()) {
          const bytes = archive.reduce((sum, member) => sum + member.size, 0);
          // One member over the limit, and with compression what is still in the compressor.
          const slack = compression === undefined ? 700_000 : 5_000_000;
          assert(bytes <= 1_000_000 + slack, `archive ${index} has ${bytes}`);
        }
      });
    }
  },
);

Deno.test("files that shrink, grow and vanish while the copy runs", NEEDS_PYTHON, async () => {
  await withCluster(async (root) => {
    const data = join(root, "data");
    // Large enough to be opened ahead and read later.
    await makeFiles(data, {
      "base/9/shrinks": new Uint8Array(3_000_000).fill(1),
      "base/9/grows": new Uint8Array(2_000_000).fill(2),
    });
    const signal = new AbortController().signal;
    const { openFile, systemOwnerNames } = await import("../../../lib/backup/members.ts");
    const { tarStream } = await import("../../../lib/backup/tar_stream.ts");
    const owners = await systemOwnerNames();
    const opened = await Promise.all(
      ["shrinks", "grows", "vanished"].map((name) =>
        openFile(join(data, "base/9", name), `base/9/${name}`, owners)
      ),
    );
    assert.equal(opened[2], undefined);
    await truncate(join(data, "base/9/shrinks"), 1_000_001);
    await appendFile(join(data, "base/9/grows"), new Uint8Array(500_000).fill(3));
    const shrunk: string[] = [];
    const queue = opened.slice(1);
    const pieces: Uint8Array[] = [];
    const stream = tarStream(opened[0], () => Promise.resolve(queue.shift()), {
      isFull: () => false,
      onContent: () => {},
      onShrunk: (message) => shrunk.push(message),
      signal,
    });
    for await (const piece of stream) pieces.push(piece.slice());
    await mkdir(join(root, "store/pg/base/ID"), { recursive: true });
    await writeFile(
      join(root, "store/pg/base/ID/x.tar"),
      Buffer.concat(pieces),
    );
    const read = members(root, "x.tar");
    assert.deepEqual(read.map((member) => member.size), [3_000_000, 2_000_000]);
    await writeFile(join(root, "expected"), new Uint8Array(3_000_000).fill(1, 0, 1_000_001));
    assert.equal(read[0]?.sha256, await sha256(join(root, "expected")));
    await writeFile(join(root, "expected"), new Uint8Array(2_000_000).fill(2));
    assert.equal(read[1]?.sha256, await sha256(join(root, "expected")));
    assert.match(shrunk.join(), /shrinks got 1999999 bytes shorter/);
  });
});

Deno.test("a control file that is missing fails the copy", async () => {
  await withCluster(async (root) => {
    await unlink(join(root, "data/global/pg_control"));
    await assert.rejects(copy(root), /Cannot read .*pg_control: it is not there/);
  });
});

Deno.test(
  "external configuration files: by their content, under their base names, before the label",
  NEEDS_PYTHON,
  async () => {
    await withCluster(async (root) => {
      await makeFiles(root, {
        "etc/real.conf": "outside",
        "etc/pg_hba.conf": "hba",
        // Its path begins with that of the data directory without being in it.
        "data2/x.conf": "included",
        "data/pg_ident.conf": "inside",
      });
      await symlink("real.conf", join(root, "etc/postgresql.conf"));
      const files = {
        configFile: join(root, "etc/postgresql.conf"),
        hbaFile: join(root, "etc/pg_hba.conf"),
        identFile: join(root, "data/pg_ident.conf"),
        includedFiles: [join(root, "data2/x.conf"), join(root, "data/postgresql.auto.conf")],
      };
      await copy(root, {
        last: async function* ({ dataDirectories, owner, owners }) {
          yield* externalFiles(files, dataDirectories, owners);
          yield textMember("backup_label", "ours\n", 0o644, owner, owners);
        },
      });
      const read = members(root, "data.tar");
      assert.deepEqual(read.slice(-4).map((member) => [member.name, member.type, member.size]), [
        ["global/pg_control", "0", 8192],
        ["postgresql.conf", "0", 7],
        ["pg_hba.conf", "0", 3],
        ["backup_label", "0", 5],
      ]);
      assert.deepEqual(await includedOutside(files, [join(root, "data")]), [
        join(root, "data2/x.conf"),
      ]);
    });
  },
);

Deno.test("a missing ident file is fine, another missing configuration file is not", async () => {
  await withCluster(async (root) => {
    const files = { configFile: null, hbaFile: null, identFile: "/nowhere/i", includedFiles: null };
    const run = (it: Parameters<typeof externalFiles>[0]) =>
      copy(root, {
        last: async function* ({ dataDirectories, owners }) {
          yield* externalFiles(it, dataDirectories, owners);
        },
      });
    await run(files);
    await assert.rejects(
      run({ ...files, hbaFile: "/nowhere/hba" }),
      /Cannot read .*\/nowhere\/hba/,
    );
  });
});

Deno.test("progress counts the bytes of all files", async () => {
  await withCluster(async (root) => {
    const seen: number[] = [];
    const files: number[] = [];
    await copy(root, {
      onProgress: ({ doneBytes }) => seen.push(doneBytes),
      onFile: (bytes) => files.push(bytes),
    });
    assert.equal(files.reduce((sum, bytes) => sum + bytes, 0), seen.at(-1));
    assert(files.includes(300_000) && files.includes(8192), `${files}`);
    assert.deepEqual(seen, [...seen].sort((a, b) => a - b));
    assert(seen.at(-1) === 300_000 + 8192 * 2 + 3 + 11 + 5, `${seen.at(-1)}`);
  });
});
