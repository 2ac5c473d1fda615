/** Runs inside the mount namespace: prints what we make of a device and of a directory. */
import { join } from "node:path";
import {
  isPresent,
  localHost,
  mountableOf,
  mountOfPath,
  mountsOf,
} from "../../../lib/snapshots/host.ts";
import type { DiskLocation } from "../../../providers/snapshots/provider.ts";

const [directory = "", device = ""] = Deno.args;
const host = localHost(Deno.env.toObject());
const { signal } = new AbortController();
// As EC2 names a device: found in the real /sys/block.
const location: DiskLocation = { kind: "ec2", device, volumeId: "vol-0123456789abcdef0" };
console.log(JSON.stringify({
  device,
  mounts: await mountsOf(host, location, signal),
  of: await mountOfPath(host, join(directory, "pg data", "inner"), signal),
  mountable: await mountableOf(host, location),
  present: await isPresent(host, location),
}));
