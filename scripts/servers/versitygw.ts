/**
 * versitygw (github.com/versity/versitygw), an S3 server over a directory that others wrote: beside Ceph's, a second
 * opinion on our requests. It minds checksums as Amazon does, which Ceph 16 passes over. Tests and benchmarks only.
 */
import { mkdir, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ObjectStore } from "../../providers/object_store.ts";
import { ensureGoProgram, type GoProgram } from "./go_program.ts";
import { s3ProgramForTests, type S3Server, s3Server } from "./s3_access.ts";
import { freePort, startServer } from "./server_processes.ts";

export const VERSITYGW_VERSION = "1.7.0";
const PACKAGE = "github.com/versity/versitygw/cmd/versitygw";

/** Holds why it can't be had, when whoever started this process has tried already: a failing build takes its time. */
export const VERSITYGW_MISSING = "TEST_VERSITYGW_MISSING";

/** @returns the path of the program, built when it is not there yet, or why it can't be had */
export function ensureVersitygw(tell?: (text: string) => void): Promise<GoProgram> {
  return ensureGoProgram("versitygw", VERSITYGW_VERSION, PACKAGE, tell);
}

/** @returns the path of the program; null when it can't be had: what would enable it has then been said */
export function versitygwForTests(): Promise<string | null> {
  return s3ProgramForTests("versitygw, a second S3 server", VERSITYGW_MISSING, ensureVersitygw);
}

/** Seen with 1.7.0: of several conditional writes at the same moment two may win. */
export function withoutAtomicCreation(store: ObjectStore): ObjectStore {
  return { ...store, capabilities: { ...store.capabilities, createOnlyPut: false } };
}

/** Start a server of its own, on a free port, over an empty directory. @throws Error when it does not start */
export async function startVersitygw(program: string): Promise<S3Server> {
  const directory = await mkdtemp(join(tmpdir(), "versitygw-"));
  // Attributes of objects go beside them: not every file system has extended ones.
  const [data, attributes] = [join(directory, "data"), join(directory, "attributes")];
  await mkdir(data);
  await mkdir(attributes);
  const port = await freePort();
  const keys = { accessKeyId: "versity-access", secretAccessKey: "versity-secret" };
  const stop = await startServer(
    "versitygw",
    port,
    program,
    ["--quiet", "--keep-alive", "posix", "--sidecar", attributes, data],
    {
      env: {
        ...Deno.env.toObject(),
        VGW_PORT: `127.0.0.1:${port}`,
        ROOT_ACCESS_KEY_ID: keys.accessKeyId,
        ROOT_SECRET_ACCESS_KEY: keys.secretAccessKey,
      },
      remove: directory,
    },
  );
  return s3Server(`http://127.0.0.1:${port}`, keys, stop);
}
