/**
 * MinIO (github.com/minio/minio), the S3 server that is on most people's own machines: it refuses keys and checksums that
 * others take. Tests only, as a black box.
 */
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureGoProgram, type GoProgram } from "./go_program.ts";
import { s3ProgramForTests, type S3Server, s3Server } from "./s3_access.ts";
import { freePort, startServer } from "./server_processes.ts";

/** Its last source; its releases have no versions that Go knows. */
const VERSION = "0.0.0-20260212201848-7aac2a2c5b7c";

/** See `s3ProgramForTests`. */
export const MINIO_MISSING = "TEST_MINIO_MISSING";

/** @returns the path of the program, built when it is not there yet, or why it can't be had */
export function ensureMinio(tell?: (text: string) => void): Promise<GoProgram> {
  return ensureGoProgram("minio", VERSION, "github.com/minio/minio", tell);
}

/** @returns the path of the program; null when it can't be had: what would enable it has then been said */
export function minioForTests(): Promise<string | null> {
  return s3ProgramForTests("MinIO", MINIO_MISSING, ensureMinio);
}

/** Start a server of its own, on a free port, over an empty directory. @throws Error when it does not start */
export async function startMinio(program: string): Promise<S3Server> {
  const directory = await mkdtemp(join(tmpdir(), "minio-"));
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  const keys = { accessKeyId: "minio-access", secretAccessKey: "minio-secret" };
  const stop = await startServer(
    "MinIO",
    port,
    program,
    // Its console would take a port that others may have.
    ["server", "--quiet", "--address", address, "--console-address", "127.0.0.1:0", directory],
    {
      env: {
        ...Deno.env.toObject(),
        MINIO_ROOT_USER: keys.accessKeyId,
        MINIO_ROOT_PASSWORD: keys.secretAccessKey,
        MINIO_BROWSER: "off",
        // It would ask the network for releases of itself.
        MINIO_UPDATE: "off",
      },
      remove: directory,
    },
  );
  return s3Server(`http://${address}`, keys, stop);
}
