/** What each command asks of the store, beside Barman's command of the same name. */
import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { type CountingProxy, startCountingProxy } from "./counting_proxy.ts";
import { markdownTable } from "./measure.ts";
import { type BenchContext, runOrThrow } from "./setup.ts";
import { connectionOf } from "./tools.ts";

/** Before what is counted, so that the archive and the catalogue are not empty. */
const BACKUPS = 3;
/** In an archive's first seconds archivers look for others that begin it, too; see lib/wal/identity.ts. Milliseconds. */
const SETTLING_MS = 6000;

export async function requests(context: BenchContext): Promise<string> {
  const { executable, peers, data } = context;
  const s3 = await context.s3();
  const cluster = await data.cluster("pgbench");
  const destination = join(data.directory, "requests");
  const [first = "", second = "", third = ""] = cluster.wal;
  const backup = ["--immediate-checkpoint", "--gzip", ...connectionOf(cluster)];
  await using proxy = await startCountingProxy(s3.rgw.endpoint);

  const countAll = async (program: (command: string) => string[]): Promise<string[]> => {
    const bucket = await s3.newBucket();
    const counted: string[] = [];
    const run = async (command: string, options: string[], ...last: string[]) => {
      const place = ["--endpoint-url", proxy.endpoint, `s3://${bucket}/pg`, "main"];
      await runOrThrow([...program(command), ...options, ...place, ...last], s3.env);
    };
    const count = async (command: string, options: string[], ...last: string[]) => {
      proxy.take();
      await run(command, options, ...last);
      counted.push(told(proxy.take()));
    };
    await count("check-wal-archive", []);
    await run("wal-archive", ["--gzip"], first);
    await new Promise((resolve) => setTimeout(resolve, SETTLING_MS));
    await count("wal-archive", ["--gzip"], second);
    await run("wal-archive", ["--gzip"], third);
    await rm(destination, { recursive: true, force: true });
    await Deno.mkdir(destination, { recursive: true });
    await count("wal-restore", [], basename(second), join(destination, "RECOVERYXLOG"));
    await rm(destination, { recursive: true, force: true });
    for (let i = 1; i < BACKUPS; i++) await run("backup", [...backup, "-n", `before${i}`]);
    await count("backup", [...backup, "-n", "counted"]);
    await count("backup-list", []);
    await count("backup-show", [], "counted");
    await count("backup-keep", ["--target", "full"], "counted");
    await count("restore", [], "counted", destination);
    await rm(destination, { recursive: true, force: true });
    await count("backup-delete", ["--backup-id", "before1"]);
    await s3.emptyBucket(bucket);
    return counted;
  };
  const commands = [
    "check-wal-archive",
    "wal-archive",
    "wal-restore",
    "backup",
    "backup-list",
    "backup-show",
    "backup-keep",
    "restore",
    "backup-delete",
  ];
  const ours = await countAll((command) => [executable, command]);
  const bin = peers.barman;
  const barmans = bin === null
    ? null
    : await countAll((command) => [join(bin, `barman-cloud-${command}`)]);
  return markdownTable(
    ["command", "ours", ...(barmans === null ? [] : ["Barman's"])],
    commands.map((name, index) => [
      name,
      ours[index] ?? "",
      ...(barmans === null ? [] : [barmans[index] ?? ""]),
    ]),
  );
}

function told({ requests, connections }: ReturnType<CountingProxy["take"]>): string {
  const all = [...requests.values()].reduce((sum, count) => sum + count, 0);
  const kinds = [...requests].map(([kind, count]) => count === 1 ? kind : `${count} ${kind}`);
  return `**${all}** (${kinds.join(", ")}; ${connections} connection${
    connections === 1 ? "" : "s"
  })`;
}
