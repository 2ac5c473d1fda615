import assert from "node:assert/strict";
import { allArchives, backupArchives } from "../../../lib/backup/archives.ts";

const DIRECTORY = "pre/srv/base/20260115T103000/";

Deno.test("archives are told by data and the tablespaces' oids", () => {
  const files = [
    "100000.tar",
    "16384.tar.gz",
    "16384_0001.tar.gz",
    "16385.tar",
    "backup.info",
    "data.tar.bz2",
    "data.tar.old",
    "data_0001.tar.snappy",
    "data_0002.tar.lz4",
    "data_0003.tar.zst",
    "data_x",
    "database.tar",
    "metadata.tar",
  ];
  const objects = files.map((file) => ({ key: DIRECTORY + file, size: 1 }));
  const archives = backupArchives(DIRECTORY, objects, {
    tablespaces: [
      { name: "big", oid: 100000, location: "/b" },
      { name: "a", oid: 16384, location: "/a" },
      { name: "gone", oid: 7, location: "/g" },
    ],
  });
  assert.deepEqual(
    archives.sets.map(({ name, main, additional }) => [
      name,
      main?.compression,
      additional.map(({ compression }) => compression),
    ]),
    [
      ["data", "bzip2", ["snappy", "lz4", "zstd"]],
      ["100000", null, []],
      ["16384", "gzip", ["gzip"]],
      ["7", undefined, []],
    ],
  );
  assert.deepEqual(archives.unknown, [`${DIRECTORY}data.tar.old`, `${DIRECTORY}data_x`]);
  assert.deepEqual(allArchives(archives).map(({ object }) => object.key.slice(DIRECTORY.length)), [
    "data.tar.bz2",
    "data_0001.tar.snappy",
    "data_0002.tar.lz4",
    "data_0003.tar.zst",
    "16384.tar.gz",
    "16384_0001.tar.gz",
    "100000.tar",
  ]);
});
