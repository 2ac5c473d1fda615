/** WAL for callers to archive by themselves. */
import type { TestPostgres } from "../../scripts/servers/embedded_postgres.ts";

/** Names of segments that are complete. */
export async function newSegments(server: TestPostgres, count: number): Promise<string[]> {
  const names: string[] = [];
  for (let i = 0; i < count; i++) {
    const [row] = await server.query(
      "create table if not exists filler (); " +
        "select pg_walfile_name(pg_switch_wal()) as name from (select txid_current()) as work",
    );
    names.push(String(row?.["name"]));
    await server.query(`create table filler_${crypto.randomUUID().replaceAll("-", "")} ()`);
  }
  return names;
}
