/**
 * Which files of a data directory or tablespace a base backup leaves out: Barman's list, applied so that a
 * directory that is left out is left out with all that is in it.
 */

/** Decides by path, relative to the walk's root, without leading `./`. */
export interface Exclusions {
  /** Leave it out; of a directory, also everything below. */
  rejects(path: string): boolean;
  /** Store this directory, but nothing below it. */
  empties(directory: string): boolean;
}

/** Rules in Barman's language (see `ruleToPattern`), and what that language can't say. */
export interface ExclusionRules {
  readonly exclude: readonly string[];
  /** Accepted even if a rule or path of the others rejects them. */
  readonly include?: readonly string[] | undefined;
  /** Regular expressions for whole paths, as source text. */
  readonly excludePatterns?: readonly string[] | undefined;
  /** Paths that are taken literally. */
  readonly excludePaths?: readonly string[] | undefined;
}

/** Compile rules; done once a walk, because a walk asks for every file. */
export function compileExclusions(rules: ExclusionRules): Exclusions {
  const include = anyOf((rules.include ?? []).map(ruleToPattern));
  const exclude = anyOf([
    ...rules.exclude.map(ruleToPattern),
    ...(rules.excludePatterns ?? []),
    ...(rules.excludePaths ?? []).map(escapePattern),
  ]);
  // `DIRECTORY/*` rejects everything in DIRECTORY, so there is no need to look into it.
  const emptied = anyOf(
    rules.exclude
      .filter((rule) => rule.endsWith("/*") && rule !== "/*")
      .map((rule) => ruleToPattern(rule.slice(0, -"/*".length))),
  );
  return {
    rejects: (path) => !(include?.test(path) ?? false) && (exclude?.test(path) ?? false),
    empties: (directory) => emptied?.test(directory) ?? false,
  };
}

/**
 * Exclusions of the data directory.
 * @param leaveOut relative paths to leave out besides: tablespaces that lie inside, `pg_tblspc/OID`
 */
export function dataExclusions(
  leaveOut: readonly string[],
  options: { readonly keepLabel: boolean },
): Exclusions {
  return compileExclusions({
    exclude: [...DATA_RULES, ...(options.keepLabel ? [] : OTHER_BACKUPS_RULES), ...COMMON_RULES],
    excludePatterns: [`base/\\d+/${TEMPORARY_RELATION}`],
    excludePaths: leaveOut,
  });
}

/**
 * Exclusions of a tablespace's location: only this server version's directory is taken.
 * @param major `15`, or `9.6` for old ones
 */
export function tablespaceExclusions(major: string): Exclusions {
  const top = `PG_${escapePattern(major)}_[^/]*`;
  return compileExclusions({
    exclude: COMMON_RULES,
    excludePatterns: [`(?!${top}$)[^/]+`, `${top}/\\d+/${TEMPORARY_RELATION}`],
  });
}

const DATA_RULES = [
  "/pg_log/*",
  "/log/*",
  "/pg_xlog/*",
  "/pg_wal/*",
  // Stored after everything else: on a standby it says how far WAL must be replayed.
  "/global/pg_control",
];

/**
 * Of another backup, not of this one. PostgreSQL would take a foreign `tablespace_map` for ours and undo the
 * relocation of tablespaces; `pg_basebackup` leaves these out too.
 */
const OTHER_BACKUPS_RULES = ["/backup_label", "/tablespace_map", "/backup_manifest"];

const COMMON_RULES = [
  "pgsql_tmp*",
  "postgresql.auto.conf.tmp",
  "current_logfiles.tmp",
  // With a number behind it while it is being written.
  "pg_internal.init*",
  "postmaster.pid",
  "postmaster.opts",
  "recovery.conf",
  "standby.signal",
  "pg_dynshmem/*",
  "pg_notify/*",
  "pg_replslot/*",
  "pg_serial/*",
  "pg_stat_tmp/*",
  "pg_snapshots/*",
  "pg_subtrans/*",
];

/** Relations of temporary tables, `t3_16384`, with fork and segment number. */
const TEMPORARY_RELATION = "t\\d+_\\d+(?:_(?:fsm|vm|init))?(?:\\.\\d+)?";

/**
 * A rule as a regular expression for whole paths. `*` is any run of characters but `/`, `**` any run, `?` one
 * character; all others stand for themselves, brackets too. A leading `/` ties the rule to the root, else it
 * may begin after any `/`.
 */
export function ruleToPattern(rule: string): string {
  const anchored = rule.startsWith("/");
  const pattern = (anchored ? rule.slice(1) : rule)
    .split(/(\*\*|\*|\?)/)
    .map((part) =>
      part === "**" ? ".*" : part === "*" ? "[^/]*" : part === "?" ? "." : escapePattern(part)
    )
    .join("");
  return anchored ? pattern : `(?:.*/)?${pattern}`;
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

/** One expression for all patterns; undefined for none. */
function anyOf(patterns: readonly string[]): RegExp | undefined {
  return patterns.length === 0 ? undefined : new RegExp(`^(?:${patterns.join("|")})$`, "s");
}
