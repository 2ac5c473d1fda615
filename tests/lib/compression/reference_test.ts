/**
 * The reference implementations beside ours: recorded streams of theirs, always; the tools
 * themselves, both ways, where the machine has them.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { COMPRESSION_NAMES, type CompressionName } from "../../../lib/compression/table.ts";
import { skipUnless } from "../../skips.ts";
import {
  collect,
  compress,
  decompress,
  fromHex,
  join,
  randomBytes,
  repeated,
  same,
  walLike,
} from "./samples.ts";

/** 40 lines: `row 0000: barman-cloud-wal-archive` to `row 0006: …`, over and over. */
const TEXT = new TextEncoder().encode(
  Array.from(
    { length: 40 },
    (_, i) => `row ${String(i % 7).padStart(4, "0")}: barman-cloud-wal-archive\n`,
  ).join(""),
);

const RECORDED: readonly [CompressionName, string, string][] = [
  [
    "gzip",
    "Python: the file name present and empty, as in Barman's base backups",
    "1f8b080829c2686902ff002bca2f573000022b85a4c4a2dcc43cdde49cfcd214ddf2c41cddc4" +
    "a2e48cccb254ae22881243c24a8c082b3126acc484b01253c24acc082b19f5f4a8a7473d3dea" +
    "e981f03400b8322f1478050000",
  ],
  [
    "gzip",
    "every optional header field",
    "1f8b081e0000000000030400616263646e616d6500636f6d6d656e7400e2482bca2f57300002" +
    "2b85a4c4a2dcc43cdde49cfcd214ddf2c41cddc4a2e48cccb254ae22881243c24a8c082b3126" +
    "acc484b01253c24acc082b19f5f4a8a7473d3deae981f03400b8322f1478050000",
  ],
  [
    "bzip2",
    "Python's bz2",
    "425a683931415926535910029b7200025dd980401040027f103e6793803000b80a68d0068000" +
    "29a3401a00002955340068d00d34d8b213413113d09f04f226e47113528b29db92c5755d96c9" +
    "94c44f827713c89d04cc4d627e13413e89989989809b84c04f626026013313413413509c84fe" +
    "2ee48a70a120200536e4",
  ],
  [
    "xz",
    "Python's lzma, check CRC-64",
    "fd377a585a000004e6d6b4460200210116000000742fe5a3e0057700425d00391bcb5020a646" +
    "a415add7b588c51593020d4fbbff143b449d8fa513c78347364fade0b880ca2d422913dd5f55" +
    "c22e2fdad09c57133a5c5c74170f871f41f3350c000000007d4932cf800d679b00015ef80a00" +
    "0000a24628e2b1c467fb020000000004595a",
  ],
  [
    "xz",
    "Python's lzma, check SHA-256",
    "fd377a585a00000ae1fb0ca10200210116000000742fe5a3e0057700425d00391bcb5020a646" +
    "a415add7b588c51593020d4fbbff143b449d8fa513c78347364fade0b880ca2d422913dd5f55" +
    "c22e2fdad09c57133a5c5c74170f871f41f3350c00000000f68606388c71b987bbdc7a83354d" +
    "c6ffbb7fe9723f5d3b7bedfd9a4bbaaeec00000176f80a000000f9c1d709b6e9df1c02000000" +
    "000a595a",
  ],
  [
    "xz",
    "Python's lzma, check CRC-32",
    "fd377a585a0000016922de360200210116000000742fe5a3e0057700425d00391bcb5020a646" +
    "a415add7b588c51593020d4fbbff143b449d8fa513c78347364fade0b880ca2d422913dd5f55" +
    "c22e2fdad09c57133a5c5c74170f871f41f3350c00000000b8322f1400015af80a000000b404" +
    "b9793e300d8b020000000001595a",
  ],
  [
    "xz",
    "Python's lzma, check none",
    "fd377a585a000000ff12d9410200210116000000742fe5a3e0057700425d00391bcb5020a646" +
    "a415add7b588c51593020d4fbbff143b449d8fa513c78347364fade0b880ca2d422913dd5f55" +
    "c22e2fdad09c57133a5c5c74170f871f41f3350c00000000000156f80a000000cfc47b0ea800" +
    "0afc020000000000595a",
  ],
  [
    "xz",
    "xz 5.4 --block-size=500, padded, twice the first half",
    "fd377a585a000004e6d6b4460200210116000000742fe5a3e001f3003b5d00391bcb5020a646" +
    "a415add7b588c51593020d4fbbff143b449d8fa513c78347364fade0b880ca2d422913dd5f55" +
    "c22e2fdad09c57131a1d0dcea800000010d65db467b530c20200210116000000742fe5a3e000" +
    "c700355d0031184aab8f0063fab35a8c1efa360fb7036d5ad0c8b678074097f2e78e0f5ee87a" +
    "f626dd3259f28dcb8b0d27f10ab2281228707f00000000007ef777b9d98fb6d4000257f40351" +
    "c8012b866d55b1c467fb020000000004595a0000000000000000fd377a585a000004e6d6b446" +
    "0200210116000000742fe5a3e002bb003e5d00391bcb5020a63e1de6ad55f6c07427200e6370" +
    "2118a4fbb649ae979dc6e72c020610b9ea34ca2a4a78ae04f424e37d6ded81900ef14a30398f" +
    "337d8fbd00000000cd88fcf09c2ba92d00015abc050000006beaa98cb1c467fb020000000004" +
    "595a",
  ],
  [
    "zstd",
    "zstd 1.5 with content size and checksum",
    "28b52ffd0458fd0300a204101690b56d5598deb0a3661d77176b88ecde172a77e1c10178766b" +
    "e2d9ad8967b7269edd9a78766be2d98322701847ad41bb0c0148e8986411b543116cbbaca402" +
    "2820e03703a138e730479c739823ce39cc11e71ce688730e73c4398739c2398739e29cc31c71" +
    "ce618e38e730479c739823ce39cc11e7b863335922037fb96711",
  ],
  [
    "zstd",
    "zstd 1.5 -19 --no-check --no-content-size, after a skippable frame",
    "5f2a4d1803000000aabbcc28b52ffd0068fd01006402726f7720303a206261726d616e2d636c" +
    "6f75642d77616c2d617263686976650a313233343536092090338d0380e07f109ec31ce99cc3" +
    "e2c4463680f106",
  ],
  [
    "lz4",
    "lz4 1.9, independent blocks with checksums",
    "04224d187440bd53000000f314726f7720303030303a206261726d616e2d636c6f75642d7761" +
    "6c2d617263686976650a23001f3123000f1f3223000f1f3323000f1f3423000f1f3523000f1f" +
    "3623000f0ff500ffffffff6850686976650a6ed3f669000000006c868fda",
  ],
  [
    "lz4",
    "python-lz4, linked blocks, content size, after a skippable frame",
    "502a4d18010000000004224d18684078050000000000001553000000f314726f772030303030" +
    "3a206261726d616e2d636c6f75642d77616c2d617263686976650a23001f3123000f1f322300" +
    "0f1f3323000f1f3423000f1f3523000f1f362300080ff500ffffffff6f50686976650a000000" +
    "00",
  ],
  [
    "snappy",
    "python-snappy",
    "ff060000734e61507059008000000925f168f80a88726f7720303030303a206261726d616e2d" +
    "636c6f75642d77616c2d617263686976650a0d23003186230000328623000033862300003486" +
    "230000358623000036862300fef500fef500fef500fef500fef500fef500fef500fef500fef5" +
    "00fef500fef500fef500fef500fef500fef500fef500fef500eef500",
  ],
  [
    "snappy",
    "python-snappy twice, with padding and a skippable chunk between",
    "ff060000734e61507059005f00008fb00239bc0588726f7720303030303a206261726d616e2d" +
    "636c6f75642d77616c2d617263686976650a0d23003186230000328623000033862300003486" +
    "230000358623000036862300fef500fef500fef500fef500fef500fef500fef500fe02000000" +
    "008001000078ff060000734e61507059005f000091306186bc0588726f7720303030363a2062" +
    "61726d616e2d636c6f75642d77616c2d617263686976650a0d23003086230000318623000032" +
    "862300003386230000348623000035862300fef500fef500fef500fef500fef500fef500fef5" +
    "00",
  ],
];

for (const [name, what, hex] of RECORDED) {
  Deno.test(`${name}: reads what was written by ${what}`, async () => {
    for (const chunk of [1, 50, 100_000]) {
      assert.ok(same(await decompress(name, fromHex(hex), chunk), TEXT));
    }
  });
}

interface Reference {
  /** For the skip's message. */
  enable: string;
  compress: string[][];
  decompress: string[];
}

const PYTHON = "import sys, MODULE; sys.stdout.buffer.write(MODULE.CALL(sys.stdin.buffer.read()))";

const REFERENCES: Readonly<Record<CompressionName, Reference>> = {
  gzip: {
    enable: "apt-get install gzip",
    compress: [["gzip", "-c"], ["gzip", "-9c"]],
    decompress: ["gzip", "-dc"],
  },
  bzip2: {
    enable: "apt-get install bzip2",
    compress: [["bzip2", "-1c"], ["bzip2", "-9c"]],
    decompress: ["bzip2", "-dc"],
  },
  xz: {
    enable: "apt-get install xz-utils",
    compress: [
      ["xz", "-c0"],
      ["xz", "-c6", "--check=sha256"],
      ["xz", "-c", "--block-size=100000", "--check=crc32"],
      ["xz", "-c", "--lzma2=preset=1,lc=0,lp=4,pb=0"],
      ["xz", "-c", "--lzma2=preset=1,lc=1,lp=2,pb=4"],
    ],
    decompress: ["xz", "-dc"],
  },
  snappy: {
    enable: "pip install python-snappy",
    compress: [python("snappy", "StreamCompressor().compress")],
    decompress: python("snappy", "StreamDecompressor().decompress"),
  },
  zstd: {
    enable: "apt-get install zstd",
    compress: [["zstd", "-c"], ["zstd", "-c", "-19"], ["zstd", "-c", "--fast=5", "--no-check"]],
    decompress: ["zstd", "-dc"],
  },
  lz4: {
    enable: "apt-get install lz4",
    compress: [
      ["lz4", "-qc", "-B4", "-BD"],
      ["lz4", "-qc", "-9", "-B4", "-BD", "-BX"],
      ["lz4", "-qc", "-B7"],
      ["lz4", "-qc", "-B5", "--no-frame-crc"],
    ],
    decompress: ["lz4", "-qdc"],
  },
};

const SAMPLES: readonly Uint8Array[] = [
  new Uint8Array(0),
  TEXT,
  walLike(1_500_000),
  new Uint8Array(3_000_000),
  join(randomBytes(300_000), walLike(300_000), randomBytes(300_000)),
  repeated("\0\0\0\0\u007f", 700_000),
];

for (const name of COMPRESSION_NAMES) {
  const reference = REFERENCES[name];
  const ignore = skipUnless(
    works(reference.compress[0] ?? []),
    `${name} against its reference implementation`,
    reference.enable,
  );

  Deno.test({
    name: `${name}: the reference implementation reads ours`,
    ignore,
    fn: async () => {
      for (const data of SAMPLES) {
        for (const level of [1, undefined, 9]) {
          const ours = await compress(name, data, { level, contentSize: data.length });
          const theirs = await run(reference.decompress, ours);
          assert.ok(same(theirs, data), `${data.length} bytes, ${level}`);
        }
      }
    },
  });

  Deno.test({
    name: `${name}: we read the reference implementation's`,
    ignore,
    fn: async () => {
      for (const data of SAMPLES) {
        for (const command of reference.compress) {
          const theirs = await run(command, data);
          assert.ok(same(await decompress(name, theirs), data), `${data.length}, ${command}`);
        }
      }
    },
  });
}

function python(module: string, call: string): string[] {
  const program = PYTHON.replaceAll("MODULE", module).replace("CALL", call);
  return [Deno.env.get("TEST_PYTHON") ?? "python3", "-c", program];
}

/** What a command makes of the input. */
async function run(command: string[], input: Uint8Array): Promise<Uint8Array> {
  const [program = "", ...args] = command;
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"], timeout: 60_000 });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve(code));
  });
  child.stdin.end(input);
  const output = await collect(child.stdout);
  assert.equal(await ended, 0, command.join(" "));
  return output;
}

function works(command: string[]): boolean {
  const [program = "", ...args] = command;
  const result = spawnSync(program, args, { input: TEXT, timeout: 60_000 });
  return result.status === 0 && result.stdout.length > 0;
}
