import assert from "node:assert/strict";
import { newEntries, requireAnswers } from "../../providers/listed_entries.ts";
import { isStoreError, type ListEntry } from "../../providers/object_store.ts";

const asked = { prefix: "p/srv/base/", action: "list p/srv/base/", where: 'bucket "b"' };
const object = (key: string, size = 1): ListEntry => ({ kind: "object", key, size });
const group = (prefix: string): ListEntry => ({ kind: "prefix", prefix });

Deno.test("what was asked for is taken, whatever it is called", () => {
  requireAnswers([
    object("p/srv/base/"),
    object("p/srv/base/../x", 0),
    object("p/srv/base/\n", Number.MAX_SAFE_INTEGER),
    group("p/srv/base//"),
    group("p/srv/base/20260115T103000/"),
  ], asked);
  requireAnswers([object("anything"), group("a/")], { ...asked, prefix: "" });
});

Deno.test("a listing of something else is an error, before anybody deletes by it", () => {
  for (
    const entry of [
      object("q/srv/base/x"),
      object("p/srv/bas"),
      object(""),
      group("q/"),
      group("p/srv/base/"),
      group("p/srv/base/x"),
      object("p/srv/base/x", -5),
      object("p/srv/base/x", NaN),
      object("p/srv/base/x", Infinity),
      object("p/srv/base/x", 1.5),
    ]
  ) {
    assert.throws(
      () => requireAnswers([object("p/srv/base/a"), entry], asked),
      (error) => isStoreError(error, "other") && /can't be right: it/.test(error.message),
      JSON.stringify(entry),
    );
  }
  // Also where everything is asked for.
  for (const entry of [object(""), group("")]) {
    assert.throws(() => requireAnswers([entry], { ...asked, prefix: "" }), /without a name/);
  }
});

Deno.test("of several pages each entry is told once, and nothing is passed over in silence", () => {
  const isNew = newEntries("b", asked);
  const pages = [object("a"), object("b"), group("c/"), group("c/"), object("c0"), object("d")];
  assert.deepEqual(pages.map(isNew), [false, false, true, false, true, true]);
  // As accounts of Azure with a hierarchical namespace list.
  const told = newEntries(undefined, asked);
  assert.ok(told(object("p/srv/base/x/a")));
  assert.throws(
    () => told(object("p/srv/base/x-b")),
    (error) =>
      isStoreError(error, "other") &&
      /not list in the order .*x-b" comes after/.test(error.message),
  );
});
