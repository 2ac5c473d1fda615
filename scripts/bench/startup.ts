/** How long it takes until a command has started: archive_command pays it for every segment. */
import { join } from "node:path";
import { type Candidate, measure, table } from "./measure.ts";
import type { BenchContext } from "./setup.ts";

export async function startup({ executable, peers }: BenchContext): Promise<string> {
  const tables: string[] = [];
  for (const word of ["--version", "--help"]) {
    const candidates: Candidate[] = [
      { name: "barman-cloud", command: [executable, "wal-archive", word] },
    ];
    const barmans = [["Barman", peers.barman], ["Debian's Barman", peers.oldBarman]] as const;
    for (const [name, directory] of barmans) {
      if (directory === null) continue;
      candidates.push({
        name,
        command: [join(directory, "barman-cloud-wal-archive"), word],
        env: { PATH: "/usr/bin:/bin" },
      });
    }
    const figures = await measure(candidates, { runs: 15 });
    tables.push(table(figures, { heading: `\`wal-archive ${word}\`` }));
  }
  return tables.join("\n");
}
