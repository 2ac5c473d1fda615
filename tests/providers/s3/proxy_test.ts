import assert from "node:assert/strict";
import { isStoreError } from "../../../providers/object_store.ts";
import { authorizationOf, proxyChoice } from "../../../providers/s3/proxy.ts";

function chosen(env: Record<string, string>, url: string): string | undefined {
  return proxyChoice(env)(new URL(url))?.href;
}

Deno.test("proxy: by the scheme of the URL, lower case first", () => {
  const env = { HTTP_PROXY: "http://a:1", http_proxy: "http://b:2", HTTPS_PROXY: "c:3" };
  assert.equal(chosen(env, "http://x"), "http://b:2/");
  assert.equal(chosen(env, "https://x"), "http://c:3/");
  assert.equal(chosen({ HTTP_PROXY: "" }, "http://x"), undefined);
  assert.equal(chosen({ HTTPS_PROXY: "http://c:3" }, "http://x"), undefined);
});

Deno.test("proxy: NO_PROXY takes hosts, domains, ports and *", () => {
  const through = (noProxy: string, url: string) =>
    chosen({ HTTPS_PROXY: "p:1", NO_PROXY: noProxy }, url) !== undefined;
  assert.ok(!through("*", "https://x"));
  assert.ok(!through("example.org", "https://example.org"));
  assert.ok(!through("other, .example.org ", "https://s3.example.org"));
  assert.ok(!through("EXAMPLE.org", "https://s3.example.org"));
  assert.ok(!through("10.0.0.1", "https://10.0.0.1:9000"));
  assert.ok(!through("example.org:443", "https://example.org"));
  assert.ok(through("example.org:9000", "https://example.org"));
  assert.ok(through("ample.org", "https://example.org"));
  assert.ok(through("", "https://example.org"));
});

Deno.test("proxy: the user is decoded, a bad URL is refused without repeating it", () => {
  assert.equal(authorizationOf(new URL("http://h:1")), undefined);
  const encoded = Buffer.from("u@x:p:w").toString("base64");
  assert.equal(authorizationOf(new URL("http://u%40x:p%3Aw@h:1")), `Basic ${encoded}`);
  for (const url of ["socks5://u:secret@h:1", "http://u:secret@[h"]) {
    assert.throws(
      () => proxyChoice({ HTTP_PROXY: url }),
      (error) => isStoreError(error, "invalid") && !error.message.includes("secret"),
    );
  }
});
