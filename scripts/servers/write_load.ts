/**
 * Clients that insert rows and remember which commits the server has confirmed: what a restored server is compared
 * with, row by row. For tests and the demo.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { TestPostgres } from "./embedded_postgres.ts";

/** A row as its client knows it: the server has confirmed its commit. */
export interface ConfirmedRow {
  readonly id: string;
  readonly amount: number;
  /** Milliseconds since 1970, read before the insert was sent and after its commit was confirmed. */
  readonly sent: number;
  readonly confirmed: number;
}

export interface WriteLoadOptions {
  /** 2 when absent. */
  readonly clients?: number | undefined;
  /** Milliseconds between two inserts of a client; 1 when absent. */
  readonly pauseMs?: number | undefined;
}

export interface WriteLoad {
  /** Grows while the clients write. */
  readonly confirmed: readonly ConfirmedRow[];
  /** Resolves when so many more rows are confirmed. */
  more(rows: number): Promise<void>;
  /** Ends the clients. Rejects with what stopped one of them before. */
  stop(): Promise<void>;
}

/** The table that the clients write to. A caller may have made it in another way: partitioned, in a tablespace. */
export const LEDGER =
  "create table if not exists ledger (id bigserial primary key, amount int not null, note text not null)";

const STEP_TIMEOUT_MS = 120_000;

/** Start clients that insert into `ledger`, one transaction a row, until they are stopped. */
export async function startWriteLoad(
  server: TestPostgres,
  { clients = 2, pauseMs = 1 }: WriteLoadOptions = {},
): Promise<WriteLoad> {
  await server.query(LEDGER);
  const confirmed: ConfirmedRow[] = [];
  let writing = true;
  let failure: unknown;
  const write = async (): Promise<void> => {
    await using sql = server.connect({ max: 1 });
    while (writing) {
      const amount = Math.floor(Math.random() * 1e6);
      const note = "x".repeat(Math.floor(Math.random() * 2000));
      const sent = Date.now();
      const [row] =
        await sql`insert into ledger (amount, note) values (${amount}, ${note}) returning id::text`;
      confirmed.push({ id: String(row?.["id"]), amount, sent, confirmed: Date.now() });
      await sleep(pauseMs);
    }
  };
  const writers = Array.from({ length: clients }, () =>
    write().catch((error: unknown) => {
      failure ??= error;
    }));
  const check = () => {
    if (failure !== undefined) throw failure;
  };
  return {
    confirmed,
    async more(rows) {
      const wanted = confirmed.length + rows;
      const end = Date.now() + STEP_TIMEOUT_MS;
      while (confirmed.length < wanted) {
        check();
        if (Date.now() > end) {
          throw new Error(`The clients wrote only ${confirmed.length} of ${wanted} rows`);
        }
        await sleep(10);
      }
    },
    async stop() {
      writing = false;
      await Promise.all(writers);
      check();
    },
  };
}

/** Close the current WAL segment and wait until it is in the archive. */
export async function archiveCurrentSegment(server: TestPostgres): Promise<string> {
  // An empty segment is not closed; an immediate message makes sure that this one is not.
  await server.query("select pg_logical_emit_message(false, 'test', 'last')");
  const [row] = await server.query("select pg_walfile_name(pg_switch_wal()) as segment");
  const segment = String(row?.["segment"]);
  const end = Date.now() + STEP_TIMEOUT_MS;
  for (;;) {
    const [state] = await server.query(
      "select last_archived_wal as done, last_failed_wal as failed from pg_stat_archiver",
    );
    const done = String(state?.["done"] ?? "");
    if (/^[0-9A-F]{24}/.test(done) && done.slice(0, 24) >= segment) return segment;
    if (Date.now() > end) {
      throw new Error(
        `${segment} was not archived (last: ${done}, failed: ${state?.["failed"]})\n` +
          await server.logTail(),
      );
    }
    await sleep(50);
  }
}

/** Rows of `ledger` that differ from what the clients know. */
export interface Comparison {
  /** Rows that must be there. */
  readonly wanted: number;
  /** Those of them that are not, or have another amount. */
  readonly missing: readonly string[];
  /** Rows that must not be there and are. */
  readonly late: readonly string[];
}

/** Look for each row in `ledger` of a restored server. */
export async function compareRows(
  server: TestPostgres,
  rows: {
    readonly present: readonly ConfirmedRow[];
    readonly absent?: readonly ConfirmedRow[] | undefined;
  },
): Promise<Comparison> {
  const found = new Map<string, number>();
  for (const row of await server.query("select id::text, amount from ledger")) {
    found.set(String(row["id"]), Number(row["amount"]));
  }
  return {
    wanted: rows.present.length,
    missing: rows.present.filter((row) => found.get(row.id) !== row.amount).map(({ id }) => id),
    // The number alone can be another row's on another timeline.
    late: (rows.absent ?? []).filter((row) => found.get(row.id) === row.amount)
      .map(({ id }) => id),
  };
}
