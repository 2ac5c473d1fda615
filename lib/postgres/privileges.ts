/** What a role must be allowed to do to take a backup. */
import type { ServerIdentity } from "./server_facts.ts";
import type { Session } from "./session.ts";

/**
 * What the session's role lacks for a whole backup, each with the statement that grants it; empty
 * when nothing is missing. Asked before the backup starts: some of it is needed only at the end.
 */
export async function missingPrivileges(
  session: Session,
  identity: ServerIdentity,
): Promise<string[]> {
  const [who] = await session.query(
    `SELECT pg_catalog.current_setting('is_superuser') AS superuser,
            pg_catalog.quote_ident(current_user::text) AS role,
            pg_catalog.quote_ident(pg_catalog.current_database()::text) AS database`,
  );
  if (who?.["superuser"] === "on") return [];
  const role = who?.["role"] ?? "";
  if (identity.version < 100_000) {
    return [`superuser, which PostgreSQL before 10 demands (ALTER ROLE ${role} SUPERUSER)`];
  }
  const missing: string[] = [];
  const [roles] = await session.query(
    `SELECT (pg_catalog.pg_has_role(current_user, 'pg_monitor', 'USAGE')
             OR (pg_catalog.pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')
                 AND pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')))::text
            AS monitors`,
  );
  if (roles?.["monitors"] !== "true") {
    missing.push(
      `the rights of pg_monitor, or of pg_read_all_settings and pg_read_all_stats (GRANT pg_monitor TO ${role})`,
    );
  }
  for (const signature of functionsNeeded(identity)) {
    const [row] = await session.query(
      "SELECT pg_catalog.has_function_privilege($1::text, 'EXECUTE')::text AS allowed",
      [signature],
    );
    if (row?.["allowed"] === "true") continue;
    const database = who?.["database"] ?? "";
    missing.push(
      `EXECUTE on ${signature} (in database ${database}: GRANT EXECUTE ON FUNCTION ${signature} TO ${role})`,
    );
  }
  return missing;
}

function functionsNeeded({ version, inRecovery }: ServerIdentity): string[] {
  const names = version >= 150_000
    ? ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"]
    : ["pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"];
  // A standby can do neither.
  if (!inRecovery) names.push("pg_switch_wal()", "pg_create_restore_point(text)");
  return names.map((name) => `pg_catalog.${name}`);
}
