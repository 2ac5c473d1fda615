import assert from "node:assert/strict";
import { backupArchives } from "../../../lib/backup/archives.ts";
import type { BackupInfo } from "../../../lib/backup/backup_info.ts";
import { restorePlan, type RestoreRequest } from "../../../lib/restore/plan.ts";
import { RestoreError } from "../../../lib/restore/restore_error.ts";
import { doneInfo } from "./fixtures.ts";

function plan(
  files: readonly string[],
  known: Partial<BackupInfo> = {},
  request: Partial<RestoreRequest> = {},
) {
  const info = doneInfo(known);
  const directory = "p/main/base/20260115T103000/";
  const objects = files.map((file) => ({ key: directory + file, size: 10 }));
  return restorePlan({
    backupId: "20260115T103000",
    info,
    archives: backupArchives(directory, objects, info),
    destination: "/new",
    tablespaceRules: [],
    resolve: (path) => path,
    ...request,
  });
}

const refuses = (call: () => unknown, kind: string, message: RegExp) =>
  assert.throws(call, (error) => {
    assert(error instanceof RestoreError);
    assert.equal(error.kind, kind);
    assert.match(error.message, message);
    return true;
  });

const names = (archives: readonly { readonly object: { readonly key: string } }[]) =>
  archives.map(({ object }) => object.key.slice(object.key.lastIndexOf("/") + 1));

const TS = [
  { name: "ts1", oid: 16384, location: "/srv/ts1" },
  { name: "inside", oid: 16385, location: "/old/pgdata/my/ts" },
];

Deno.test("plan: archives in order of their numbers, also beyond four digits", () => {
  const many = Array.from(
    { length: 10001 },
    (_, i) => `data_${String(i + 1).padStart(4, "0")}.tar.gz`,
  );
  const made = plan([...many, "data.tar.gz"].sort());
  const found = names(made.pgdata.archives);
  assert.equal(found[0], "data.tar.gz");
  assert.deepEqual(found.slice(1), many);
  assert.equal(made.totalBytes, 100020);
  assert.equal(made.walDirectory, "pg_wal");
  assert.equal(plan(["data.tar"], { version: 90624 }).walDirectory, "pg_xlog");
});

Deno.test("plan: missing archives are named", () => {
  refuses(() => plan([]), "missing-archive", /no archive data\.tar\[\.\*\] of PGDATA/);
  refuses(() => plan(["data_0001.tar"]), "missing-archive", /data\.tar/);
  refuses(() => plan(["data.tar", "data_0002.tar"]), "missing-archive", /data_0001\.tar/);
  refuses(() => plan(["data.tar.rar"]), "missing-archive", /data\.tar/);
  refuses(
    () => plan(["data.tar"], { tablespaces: TS }),
    "missing-archive",
    /no archive 16384\.tar\[\.\*\] of tablespace ts1/,
  );
});

Deno.test("plan: where tablespaces go", () => {
  const files = ["16384.tar", "16385.tar.gz", "data.tar.bz2", "data.zip"];
  const made = plan(files, { tablespaces: TS });
  assert.deepEqual(made.tablespaces.map(({ directory, link }) => [directory, link]), [
    ["/srv/ts1", "/srv/ts1"],
    ["/old/pgdata/my/ts", "/old/pgdata/my/ts"],
  ]);
  assert.deepEqual(made.pgdata.excluded, ["my/ts"]);
  assert.equal(made.warnings.length, 2);
  assert.match(made.warnings[0] ?? "", /data\.zip/);
  assert.match(made.warnings[1] ?? "", /--tablespace inside:\/new\/my\/ts$/);

  const moved = plan(files.slice(0, 3), { tablespaces: TS }, {
    tablespaceRules: [
      { name: "inside", location: "/elsewhere" },
      { name: "inside", location: "/new/other" },
      { name: "nobody", location: "/x" },
    ],
    resolve: (path) => path === "/new/other" ? "/real" : path,
  });
  assert.deepEqual(moved.tablespaces.map(({ directory, link }) => [directory, link]), [
    ["/srv/ts1", "/srv/ts1"],
    ["/real", "/real"],
  ]);
  assert.deepEqual(moved.warnings, [
    "Backup 20260115T103000 has no tablespace nobody: its --tablespace has no effect",
  ]);
  const inNew = plan(files.slice(0, 3), { tablespaces: TS }, {
    tablespaceRules: [{ name: "inside", location: "/new/other" }],
  });
  assert.deepEqual(inNew.pgdata.excluded, ["my/ts", "other"]);
});

Deno.test("plan: a tablespace made in place needs no link", () => {
  const tablespaces = [{ name: "t", oid: 16384, location: "pg_tblspc/16384" }];
  const [root] = plan(["data.tar", "16384.tar"], { tablespaces }).tablespaces;
  assert.deepEqual([root?.directory, root?.link], ["/new/pg_tblspc/16384", null]);
});

Deno.test("plan: one directory for two things is refused", () => {
  const request = { tablespaceRules: [{ name: "ts1", location: "/new" }] };
  const files = ["data.tar", "16384.tar", "16385.tar"];
  refuses(
    () => plan(files, { tablespaces: TS }, request),
    "destination",
    /both PGDATA and tablespace ts1 into \/new/,
  );
});
