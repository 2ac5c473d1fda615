import assert from "node:assert/strict";
import fc from "fast-check";
import { directoryOfUrl } from "../../../providers/file/url.ts";
import { openFileStore } from "../../../providers/file/store.ts";
import { StoreError } from "../../../providers/object_store.ts";

Deno.test("a file URL names an absolute directory", () => {
  const cases: Record<string, string> = {
    "file:///backups/pg": "/backups/pg",
    "file:///backups/pg/": "/backups/pg",
    "file:///backups//pg///": "/backups/pg",
    "file:///backups/./pg": "/backups/pg",
    "FILE:///Backups": "/Backups",
    "file://localhost/backups": "/backups",
    "file://LOCALHOST/backups": "/backups",
    "file:///a%20b/%C3%BC/c%3Fd%23e%25": "/a b/ü/c?d#e%",
    "file:///a b/ü/c+d": "/a b/ü/c+d",
    "file:///back\\slash": "/back\\slash",
  };
  for (const [url, directory] of Object.entries(cases)) {
    assert.equal(directoryOfUrl(url), directory, url);
  }
});

Deno.test("other URLs are refused with a reason", () => {
  const cases: Record<string, RegExp> = {
    "file://backups/pg": /"backups" would be a host; write file:\/\/\//,
    "file://": /name a directory below/,
    "file:///": /name a directory below/,
    "file:///.": /name a directory below/,
    "file:backups": /write file:\/\/\/absolute/,
    "file:/backups": /write file:\/\/\/absolute/,
    "file:": /write file:\/\/\/absolute/,
    "/backups": /does not begin with file:/,
    "s3://bucket": /does not begin with file:/,
    "file:///a/../b": /without \.\./,
    "file:///a/%2e%2e/b": /without \.\./,
    "file:///a%2Fb": /%2F/,
    "file:///a%": /percent-encoded/,
    "file:///%FF": /percent-encoded/,
    "file:///a%00b": /NUL/,
    "file:///a?b": /\? and #/,
    "file:///a#b": /\? and #/,
  };
  for (const [url, message] of Object.entries(cases)) {
    assert.throws(() => directoryOfUrl(url), (error) => {
      assert.ok(error instanceof StoreError && error.kind === "invalid", url);
      assert.match(error.message, message);
      assert.ok(error.message.includes(url));
      return true;
    });
  }
});

Deno.test("every directory can be written as a URL", () => {
  const name = fc.string({ unit: "grapheme", minLength: 1 }).filter((text) =>
    !/[/\0]/.test(text) && text !== "." && text !== ".." && text.isWellFormed()
  );
  fc.assert(fc.property(fc.array(name, { minLength: 1 }), (names) => {
    const url = "file:///" + names.map(encodeURIComponent).join("/");
    assert.equal(directoryOfUrl(url), "/" + names.join("/"));
  }));
});

Deno.test("the whole path is the bucket, and the prefix is empty", async () => {
  const url = "file:///nowhere/backups/pg";
  const { store, location } = await openFileStore(url, { env: {} });
  assert.deepEqual(location, { provider: "local", url, prefix: "" });
  assert.equal(store.description, "directory /nowhere/backups/pg");
  await store.close();
});
