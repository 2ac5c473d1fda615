/** What a base backup's checks cost: page checksums and the manifest, plain and compressed, into a directory. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startPostgres } from "../servers/embedded_postgres.ts";
import { measure, runsOr, table } from "./measure.ts";
import type { BenchContext } from "./setup.ts";

const PLAIN = ["--no-verify-page-checksums", "--no-manifest"];
const WAYS: readonly (readonly [name: string, words: readonly string[]])[] = [
  ["plain, no checks", PLAIN],
  ["plain, pages", ["--no-manifest"]],
  ["plain, pages, manifest without checksums", ["--manifest-checksums", "none"]],
  ["plain, pages, manifest of SHA-256 (default)", []],
  ["plain, pages, manifest of CRC-32C", ["--manifest-checksums", "crc32c"]],
  ["zstd, no checks", ["--zstd", ...PLAIN]],
  ["zstd, pages, manifest of SHA-256 (default)", ["--zstd"]],
];
const ROWS = 1_000_000;

export async function checks({ executable }: BenchContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "bench-checks-"));
  await using server = await startPostgres({
    major: 17,
    settings: { archive_mode: "on", archive_command: "/bin/true", max_wal_size: "4GB" },
  });
  try {
    await server.query(
      "create table big as select i, md5(i::text) as t, repeat(md5((i + 1)::text), 25) as f " +
        `from generate_series(1, ${ROWS}) i`,
    );
    await server.query("checkpoint");
    const [size] = await server.query("select pg_database_size(current_database())::text as bytes");
    const common = ["--missing-wal", "ignore", "--immediate-checkpoint"];
    const where = [`file://${directory}`, "main", "-d", server.conninfo()];
    const mib = Math.ceil(Number(size?.["bytes"]) / 1024 ** 2);
    // All write into memory that has been used and freed: on virtual machines fresh memory costs as much as the rest.
    const prepare = [
      "sh",
      "-c",
      `cd ${directory} && rm -rf main && dd if=/dev/zero of=x bs=1M count=${mib} 2>/dev/null && rm x`,
    ];
    const figures = await measure(
      WAYS.map(([name, words]) => ({
        name,
        command: [executable, "backup", ...common, ...words, ...where],
        prepare,
      })),
      { runs: runsOr(5) },
    );
    return table(figures, { bytes: mib * 1024 ** 2 });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
