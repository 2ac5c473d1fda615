/** How long it takes until a command has started: archive_command pays it for every segment. */
import { join } from "node:path";
import { type BenchContext, type Candidate, measure, table } from "./measure.ts";

export async function startup({ executable, barman }: BenchContext): Promise<string> {
  const tables: string[] = [];
  const compared: readonly (readonly [string, readonly string[]])[] = [
    ["--version", ["--version"]],
    ["--help", ["--help"]],
  ];
  for (const [title, words] of compared) {
    const candidates: Candidate[] = [
      { name: "barman-cloud wal-archive", command: [executable, "wal-archive", ...words] },
    ];
    if (barman !== null) {
      candidates.push({
        name: "Barman's barman-cloud-wal-archive",
        command: [join(barman, "barman-cloud-wal-archive"), ...words],
        env: { PATH: "/usr/bin:/bin" },
      });
    }
    tables.push(table(`Start: wal-archive ${title}`, await measure(candidates, { runs: 15 })));
  }
  return tables.join("\n");
}
