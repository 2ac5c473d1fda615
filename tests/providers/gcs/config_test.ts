import assert from "node:assert/strict";
import { readGcsConfig } from "../../../providers/gcs/config.ts";

Deno.test("Google settings: what is Google's own, and what gets credentials", async () => {
  const cases = [
    [{}, "https://storage.googleapis.com", true, false],
    [
      { API_ENDPOINT_OVERRIDE: "https://storage.europe-west3.rep.googleapis.com/" },
      "https://storage.europe-west3.rep.googleapis.com",
      true,
      false,
    ],
    [
      { API_ENDPOINT_OVERRIDE: "https://googleapis.com.example.org" },
      "https://googleapis.com.example.org",
      false,
      false,
    ],
    [{ STORAGE_EMULATOR_HOST: "127.0.0.1:4443" }, "http://127.0.0.1:4443", false, true],
    [
      { GOOGLE_CLOUD_UNIVERSE_DOMAIN: "example.cloud" },
      "https://storage.example.cloud",
      true,
      false,
    ],
  ] as const;
  for (const [env, endpoint, isGoogle, isEmulator] of cases) {
    const config = await readGcsConfig({ env });
    assert.deepEqual(
      [config.endpoint, config.isGoogle, config.isEmulator],
      [endpoint, isGoogle, isEmulator],
    );
  }
});
