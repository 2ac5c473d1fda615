import assert from "node:assert/strict";
import fc from "fast-check";
import {
  compileExclusions,
  dataExclusions,
  ruleToPattern,
  tablespaceExclusions,
} from "../../../lib/backup/exclusions.ts";

const matches = (rule: string, path: string) =>
  new RegExp(`^${ruleToPattern(rule)}$`, "s").test(path);

Deno.test("rules: stars, question marks, anchors, literal brackets", () => {
  assert(matches("/log/*", "log/a"));
  assert(!matches("/log/*", "log/a/b"));
  assert(!matches("/log/*", "x/log/a"));
  assert(!matches("/log/*", "log"));
  assert(matches("pg_stat_tmp/*", "a/b/pg_stat_tmp/c"));
  assert(!matches("pg_stat_tmp/*", "apg_stat_tmp/c"));
  assert(matches("**/x", "a/b/x"));
  assert(matches("a?c", "abc"));
  assert(matches("[0-9]", "[0-9]"));
  assert(!matches("[0-9]", "5"));
  assert(matches("a.b+c", "a.b+c"));
  assert(!matches("a.b+c", "aXbbc"));
  assert(matches("postmaster.pid", "sub/postmaster.pid"));
  assert(!matches("postmaster.pid", "postmaster.pid.bak"));
  assert(matches("x*", "x\ny"));
});

Deno.test("rules without wildcards match exactly themselves, at the root or after a slash", () => {
  const name = fc.string({ minLength: 1, maxLength: 8 }).filter((text) => !/[*?/]/.test(text));
  fc.assert(fc.property(name, name, (rule, other) => {
    assert(matches(rule, rule));
    assert(matches(rule, `${other}/${rule}`));
    assert.equal(matches(`/${rule}`, other), other === rule);
    assert(!matches(`/${rule}`, `${other}/${rule}`));
  }));
});

Deno.test("data directory: what Barman leaves out", () => {
  const { rejects, empties } = dataExclusions(["pg_tblspc/16384", "inside*"], { keepLabel: false });
  for (
    const path of [
      "log/postgresql.log",
      "pg_wal/000000010000000000000001",
      "pg_wal/archive_status",
      "global/pg_control",
      "base/pgsql_tmp",
      "base/5/pgsql_tmp1234.0",
      "postgresql.auto.conf.tmp",
      "base/5/pg_internal.init",
      "global/pg_internal.init.4711",
      "postmaster.pid",
      "postmaster.opts",
      "standby.signal",
      "pg_replslot/slot1",
      "pg_tblspc/16384",
      "inside*",
      "base/5/t3_16384",
      "base/5/t3_16384.1",
      "base/5/t12_16384_fsm",
      "base/5/t3_16384_vm.2",
      "backup_label",
      "tablespace_map",
      "backup_manifest",
    ]
  ) assert(rejects(path), path);
  for (
    const path of [
      "pg_wal",
      "pg_replslot",
      "log",
      "postgresql.conf",
      "recovery.signal",
      "base/5/16384",
      "base/5/16384_init",
      "base/5/t_16384",
      "base/5/table",
      "base/t3_16384",
      "x/5/t3_16384",
      "base/5/t3_16384_abc",
      "global/pg_control.bak",
      "pg_tblspc/163845",
      "insideX",
      "backup_label.old",
      "sub/backup_label",
    ]
  ) assert(!rejects(path), path);
  for (const path of ["pg_wal", "log", "pg_subtrans", "pg_stat_tmp"]) assert(empties(path), path);
  for (const path of ["base", "pg_xact", "pg_tblspc", "x/pg_wal", "global"]) {
    assert(!empties(path), path);
  }
});

Deno.test("data directory of a copy made by Barman keeps its own label", () => {
  const { rejects } = dataExclusions([], { keepLabel: true });
  for (const path of ["backup_label", "tablespace_map", "backup_manifest"]) assert(!rejects(path));
});

Deno.test("tablespace: only the server version's directory", () => {
  const { rejects, empties } = tablespaceExclusions("15");
  assert(!rejects("PG_15_202209061"));
  assert(!rejects("PG_15_202209061/5"));
  assert(!rejects("PG_15_202209061/5/16386"));
  assert(!empties("PG_15_202209061"));
  for (
    const path of [
      "PG_14_202107181",
      "PG_150_1",
      "lost+found",
      "PG_15_202209061/pgsql_tmp",
      "PG_15_202209061/5/t4_16999",
    ]
  ) assert(rejects(path), path);
  assert(tablespaceExclusions("9.6").rejects("PG_9X6_1"));
  assert(!tablespaceExclusions("9.6").rejects("PG_9.6_1"));
});

Deno.test("an include rule wins over exclude rules", () => {
  const { rejects } = compileExclusions({ exclude: ["/*"], include: ["/PG_15_*"] });
  assert(rejects("other"));
  assert(!rejects("PG_15_1"));
  assert(!rejects("other/deep"));
});
