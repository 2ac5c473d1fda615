/**
 * Where access tokens come from, against local servers that answer as Google's documentation of OAuth
 * 2.0, IAM Credentials, the security token service and the metadata service says.
 */
import assert from "node:assert/strict";
import { createVerify, generateKeyPairSync } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openGcsStore } from "../../../providers/gcs/store.ts";
import { isStoreError, type StoreError } from "../../../providers/object_store.ts";
import { type Answer, type AnsweringServer, type Asked, withAnswers } from "./answering_server.ts";

const { privateKey, publicKey } = generateKeyPairSync("rsa", {
  modulusLength: 2048,
  privateKeyEncoding: { type: "pkcs8", format: "pem" },
  publicKeyEncoding: { type: "spki", format: "pem" },
});
const FULL_CONTROL = "https://www.googleapis.com/auth/devstorage.full_control";
const OBJECT = { name: "k", size: "5", generation: "7", updated: "2026-01-01T00:00:00Z" };

interface Subject extends AnsweringServer {
  /** Write a credentials file. @returns its path */
  file(content: unknown, name?: string): Promise<string>;
  readonly home: string;
  /** `head` of an object through a fresh store. */
  head(
    env: Record<string, string | undefined>,
    attempts?: number,
  ): Promise<{ readonly size: number }>;
  serviceAccount(more?: Record<string, unknown>): Record<string, unknown>;
}

/** @param tokens what is answered beside the store itself, which wants `Bearer good` */
async function withStore(
  tokens: (asked: Asked) => Answer,
  run: (subject: Subject) => Promise<void>,
): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), "gcs-credentials-"));
  const answers = (asked: Asked): Answer => {
    if (!asked.path.startsWith("/storage/v1/")) return tokens(asked);
    if (asked.headers.authorization === "Bearer good") return { body: OBJECT };
    return { status: 401, body: { error: { code: 401, message: "Invalid Credentials" } } };
  };
  try {
    await withAnswers(answers, async (server) => {
      await run({
        ...server,
        home,
        async file(content, name = "credentials.json") {
          const path = join(home, name);
          await mkdir(join(path, ".."), { recursive: true });
          const text = typeof content === "string" ? content : JSON.stringify(content);
          await writeFile(path, text);
          return path;
        },
        async head(env, attempts) {
          const { store } = await openGcsStore("gs://b", {
            attempts,
            env: {
              HOME: home,
              API_ENDPOINT_OVERRIDE: server.endpoint,
              GCE_METADATA_HOST: "127.0.0.1:1",
              ...env,
            },
          });
          try {
            return await store.head("k");
          } finally {
            await store.close();
          }
        },
        serviceAccount: (more = {}) => ({
          type: "service_account",
          project_id: "project-1",
          private_key_id: "key-id",
          private_key: privateKey,
          client_email: "archiver@project-1.iam.gserviceaccount.com",
          token_uri: `${server.endpoint}/token`,
          ...more,
        }),
      });
    });
  } finally {
    await rm(home, { recursive: true });
  }
}

const good = (): Answer => ({
  body: { access_token: "good", expires_in: 3599, token_type: "Bearer" },
});

Deno.test("Google credentials: a service account signs for its token", async () => {
  await withStore(good, async ({ file, head, serviceAccount, asked }) => {
    const path = await file(serviceAccount());
    assert.equal((await head({ GOOGLE_APPLICATION_CREDENTIALS: path })).size, 5);
    const [grant] = asked;
    assert.equal(grant?.path, "/token");
    const form = new URLSearchParams(grant?.body);
    assert.equal(form.get("grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer");
    const [header = "", claims = "", signature = ""] = (form.get("assertion") ?? "").split(".");
    const decoded = (part: string) => JSON.parse(Buffer.from(part, "base64url").toString());
    assert.deepEqual(decoded(header), { alg: "RS256", typ: "JWT", kid: "key-id" });
    const { iat, exp, ...rest } = decoded(claims);
    assert.deepEqual(rest, {
      iss: "archiver@project-1.iam.gserviceaccount.com",
      scope: FULL_CONTROL,
      // Not where it is sent to, which may be a private address.
      aud: "https://oauth2.googleapis.com/token",
    });
    assert.ok(exp - iat === 3600 && Math.abs(iat - Date.now() / 1000) < 60);
    const verify = createVerify("RSA-SHA256").update(`${header}.${claims}`);
    assert.ok(verify.verify(publicKey, signature, "base64url"), "signed with its key");
  });
});

Deno.test("Google credentials: gcloud's file, of a user, is found where gcloud puts it", async () => {
  await withStore(good, async ({ file, head, asked, endpoint, home }) => {
    const user = {
      type: "authorized_user",
      client_id: "id",
      client_secret: "sec",
      refresh_token: "refresh",
      token_uri: `${endpoint}/token`,
    };
    await file(user, ".config/gcloud/application_default_credentials.json");
    await head({});
    assert.deepEqual(Object.fromEntries(new URLSearchParams(asked[0]?.body)), {
      grant_type: "refresh_token",
      client_id: "id",
      client_secret: "sec",
      refresh_token: "refresh",
    });
    await file(user, "elsewhere/application_default_credentials.json");
    await rm(join(home, ".config"), { recursive: true });
    await head({ CLOUDSDK_CONFIG: join(home, "elsewhere") });
  });
});

Deno.test("Google credentials: the project that pays is named in each request", async () => {
  await withStore(good, async ({ file, head, serviceAccount, asked, endpoint }) => {
    const payer = () => asked.at(-1)?.headers["x-goog-user-project"];
    const user = await file({
      type: "authorized_user",
      client_id: "id",
      client_secret: "sec",
      refresh_token: "refresh",
      token_uri: `${endpoint}/token`,
      quota_project_id: "payer-1",
    });
    await head({ GOOGLE_APPLICATION_CREDENTIALS: user });
    assert.equal(payer(), "payer-1");
    await head({ GOOGLE_APPLICATION_CREDENTIALS: user, GOOGLE_CLOUD_QUOTA_PROJECT: "payer-2" });
    assert.equal(payer(), "payer-2");
    const account = await file(serviceAccount({ quota_project_id: "payer-3" }), "account.json");
    await head({ GOOGLE_APPLICATION_CREDENTIALS: account });
    assert.equal(payer(), undefined);
  });
});

Deno.test("Google credentials: one service account impersonates another", async () => {
  const answers = ({ path, headers }: Asked): Answer => {
    if (path === "/token") return { body: { access_token: "source", expires_in: 3599 } };
    assert.equal(headers.authorization, "Bearer source");
    return {
      body: { accessToken: "good", expireTime: new Date(Date.now() + 3.6e6).toISOString() },
    };
  };
  await withStore(answers, async ({ file, head, serviceAccount, asked, endpoint }) => {
    const path = await file({
      type: "impersonated_service_account",
      service_account_impersonation_url: `${endpoint}/v1/sa:generateAccessToken`,
      delegates: ["d"],
      source_credentials: serviceAccount(),
    });
    await head({ GOOGLE_APPLICATION_CREDENTIALS: path });
    assert.deepEqual(JSON.parse(asked[1]?.body ?? ""), {
      scope: [FULL_CONTROL],
      delegates: ["d"],
      lifetime: "3600s",
    });
  });
});

Deno.test("Google credentials: workload identity federation, through our connections", async () => {
  const answers = ({ path }: Asked): Answer => {
    if (path === "/sts") {
      const body = { access_token: "federated", expires_in: 3600, token_type: "Bearer" };
      return {
        body: { ...body, issued_token_type: "urn:ietf:params:oauth:token-type:access_token" },
      };
    }
    return {
      body: { accessToken: "good", expireTime: new Date(Date.now() + 3.6e6).toISOString() },
    };
  };
  await withStore(answers, async ({ file, head, asked, endpoint }) => {
    const token = await file("subject-token", "token.jwt");
    const path = await file({
      type: "external_account",
      audience:
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
      subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
      token_url: `${endpoint}/sts`,
      service_account_impersonation_url: `${endpoint}/v1/sa:generateAccessToken`,
      credential_source: { file: token },
    });
    assert.equal((await head({ GOOGLE_APPLICATION_CREDENTIALS: path })).size, 5);
    const exchange = new URLSearchParams(asked[0]?.body);
    assert.equal(exchange.get("subject_token"), "subject-token");
    assert.equal(asked[1]?.headers.authorization, "Bearer federated");
  });
  const refuse = (): Answer => ({
    status: 400,
    body: { error: "invalid_grant", error_description: "The subject token is expired" },
  });
  await withStore(refuse, async ({ file, head, endpoint }) => {
    const token = await file("subject-token", "token.jwt");
    const path = await file({
      type: "external_account",
      audience:
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
      subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
      token_url: `${endpoint}/sts`,
      credential_source: { file: token },
    });
    const error = await failure(head({ GOOGLE_APPLICATION_CREDENTIALS: path }));
    assert.equal(error.kind, "denied");
    assert.match(error.message, /subject token is expired/);
    assert.ok(!JSON.stringify(error.message).includes("subject-token"));
    const certificate = await file({
      type: "external_account",
      audience: "//iam.googleapis.com/x",
      subject_token_type: "urn:ietf:params:oauth:token-type:mtls",
      token_url: `${endpoint}/sts`,
      credential_source: { certificate: { use_default_certificate_config: true } },
    });
    const refused = await failure(head({ GOOGLE_APPLICATION_CREDENTIALS: certificate }));
    assert.equal(refused.kind, "denied");
    assert.match(refused.message, /X\.509 certificate .* not supported/);
  });
});

Deno.test("Google credentials: the metadata service, asked with its header", async () => {
  const answers = ({ headers, path }: Asked): Answer => {
    if (headers["metadata-flavor"] !== "Google") return { status: 403 };
    const flavor = { "metadata-flavor": "Google" };
    if (path.endsWith("/project/project-id")) return { headers: flavor, body: "project-9" };
    return { ...good(), headers: flavor };
  };
  await withStore(answers, async ({ head, asked, host, endpoint }) => {
    await head({ GCE_METADATA_HOST: host });
    assert.equal(
      asked[0]?.path,
      "/computeMetadata/v1/instance/service-accounts/default/token",
    );
    // A new bucket belongs to the machine's project.
    const { store } = await openGcsStore("gs://b", {
      env: { API_ENDPOINT_OVERRIDE: endpoint, GCE_METADATA_HOST: host },
    });
    await store.createBucket();
    await store.close();
    assert.equal(asked.at(-1)?.query.get("project"), "project-9");
  });
});

Deno.test("Google credentials: without any the answer comes in seconds, and says what to set", async () => {
  await withStore(good, async ({ head, asked }) => {
    const started = performance.now();
    const error = await failure(head({}));
    assert.equal(error.kind, "denied");
    assert.match(error.message, /no credentials.*GOOGLE_APPLICATION_CREDENTIALS/);
    assert.equal(error.retryable, false);
    assert.ok(performance.now() - started < 10_000);
    assert.equal(asked.length, 0);
  });
  // What answers there is another cloud's.
  await withStore(() => ({ status: 404, body: "404 - Not Found" }), async ({ head, host }) => {
    const error = await failure(head({ GCE_METADATA_HOST: host }));
    assert.equal(error.kind, "denied");
    assert.match(error.message, /not Google's metadata service/);
  });
});

Deno.test("Google credentials: refusals and failures are told apart, without secrets", async () => {
  const cases: Array<[Answer, StoreError["kind"], RegExp]> = [
    [
      {
        status: 400,
        body: { error: "invalid_grant", error_description: "Invalid JWT Signature." },
      },
      "denied",
      /HTTP 400, invalid_grant: Invalid JWT Signature$/,
    ],
    [
      {
        status: 400,
        body: {
          error: "invalid_grant",
          error_description: "Token must be in a reasonable timeframe. Check your iat and exp.",
        },
      },
      "denied",
      /clock/,
    ],
    [{ status: 401, body: { error: "invalid_client" } }, "denied", /invalid_client/],
    [{ status: 200, body: "<html>" }, "denied", /HTTP 200/],
    [{ status: 200, body: { id_token: "x" } }, "denied", /without a token/],
  ];
  for (const [answer, kind, message] of cases) {
    await withStore(() => answer, async ({ file, head, serviceAccount }) => {
      const path = await file(serviceAccount());
      const error = await failure(head({ GOOGLE_APPLICATION_CREDENTIALS: path }));
      assert.equal(error.kind, kind, error.message);
      assert.match(error.message, message);
      assert.match(error.message, /^Cannot look for k in bucket "b" at http/);
      assert.ok(!/PRIVATE KEY|eyJ/.test(error.message));
    });
  }
});

Deno.test("Google credentials: a passing failure of the token service is passed over", async () => {
  const passing: Answer[] = [
    { status: 503 },
    { status: 408 },
    { status: 400, body: { error: "internal_failure" } },
  ];
  for (const failed of passing) {
    let requests = 0;
    const answers = (): Answer => ++requests < 2 ? failed : good();
    await withStore(answers, async ({ file, head, serviceAccount }) => {
      const path = await file(serviceAccount());
      await head({ GOOGLE_APPLICATION_CREDENTIALS: path });
      assert.equal(requests, 2);
    });
  }
  // An overloaded metadata service, which forgets its header.
  let requests = 0;
  const metadata = (): Answer =>
    ++requests < 2 ? { status: 503 } : { ...good(), headers: { "metadata-flavor": "Google" } };
  await withStore(metadata, async ({ head, host }) => {
    await head({ GCE_METADATA_HOST: host });
    assert.equal(requests, 2);
  });
  await withStore(() => ({ status: 503 }), async ({ head, host }) => {
    const error = await failure(head({ GCE_METADATA_HOST: host }, 1));
    assert.equal(error.kind, "unavailable");
    assert.match(error.message, /the metadata service failed \(127.* answered HTTP 503\)/);
  });
});

Deno.test("Google credentials: a lifetime told as text counts", async () => {
  let requests = 0;
  const answers = (): Answer => {
    requests++;
    return { body: { access_token: "good", expires_in: "0.02", token_type: "Bearer" } };
  };
  await withStore(answers, async ({ file, serviceAccount, endpoint }) => {
    const path = await file(serviceAccount());
    const { store } = await openGcsStore("gs://b", {
      env: { API_ENDPOINT_OVERRIDE: endpoint, GOOGLE_APPLICATION_CREDENTIALS: path },
    });
    await store.head("k");
    await new Promise((resolve) => setTimeout(resolve, 30));
    await store.head("k");
    await store.close();
    assert.equal(requests, 2);
  });
});

Deno.test("Google credentials: files that can't be right are named, with what is missing", async () => {
  await withStore(good, async ({ file, head, serviceAccount, home, asked }) => {
    const cases: Array<[unknown, RegExp]> = [
      ["{ secret", /is not JSON$/],
      ["[]", /holds no JSON object/],
      [{}, /has no "type"/],
      [{ type: "secret_type" }, /type "secret_type"/],
      [serviceAccount({ private_key: undefined }), /has no "private_key"/],
      [serviceAccount({ private_key: "-----BEGIN secret" }), /no RSA key in PEM form/],
      [serviceAccount({ token_uri: "nowhere" }), /no valid URL/],
      [{ type: "impersonated_service_account" }, /service_account_impersonation_url/],
    ];
    for (const [content, message] of cases) {
      const path = await file(content);
      const error = await failure(head({ GOOGLE_APPLICATION_CREDENTIALS: path }));
      assert.equal(error.kind, "denied", String(message));
      assert.match(error.message, message);
    }
    const absent = join(home, "absent.json");
    const error = await failure(head({ GOOGLE_APPLICATION_CREDENTIALS: absent }));
    assert.match(error.message, /cannot read .*absent\.json, which GOOGLE_APPLICATION_CREDENTIALS/);
    assert.equal(asked.length, 0);
  });
});

Deno.test("Google credentials: a refused token is renewed once, a refused identity is denied", async () => {
  const tokens = ["stale", "good"];
  const answers = (): Answer => ({
    body: { access_token: tokens.shift() ?? "none", expires_in: 3599 },
  });
  await withStore(answers, async ({ file, head, serviceAccount, asked }) => {
    const path = await file(serviceAccount());
    await head({ GOOGLE_APPLICATION_CREDENTIALS: path });
    assert.equal(asked.length, 4);
    const error = await failure(head({ GOOGLE_APPLICATION_CREDENTIALS: path }));
    assert.equal(error.kind, "denied");
    assert.match(error.message, /access denied \(HTTP 401.*credentials \(from .*credentials\.json/);
    assert.ok(!error.message.includes("none"));
  });
});

Deno.test("Google credentials: requests at once share one token, and an aborted one leaves it", async () => {
  await withStore(good, async ({ file, serviceAccount, endpoint, asked }) => {
    const path = await file(serviceAccount());
    const { store } = await openGcsStore("gs://b", {
      env: { API_ENDPOINT_OVERRIDE: endpoint, GOOGLE_APPLICATION_CREDENTIALS: path },
    });
    const controller = new AbortController();
    const reason = new Error("stop");
    const first = store.head("k", { signal: controller.signal });
    const others = [1, 2, 3].map(() => store.head("k"));
    controller.abort(reason);
    await assert.rejects(first, (error) => error === reason);
    await Promise.all(others);
    assert.equal(asked.filter(({ path }) => path === "/token").length, 1);
    await store.close();
  });
});

Deno.test("Google credentials: an emulator gets none", async () => {
  await withAnswers([{ body: OBJECT }], async ({ endpoint, host, asked }) => {
    for (const value of [endpoint, host, `${endpoint}/`]) {
      const { store } = await openGcsStore("gs://b", {
        env: { STORAGE_EMULATOR_HOST: value, GOOGLE_APPLICATION_CREDENTIALS: "/absent" },
      });
      assert.equal((await store.head("k")).size, 5);
      await store.close();
    }
    assert.ok(asked.every(({ headers }) => headers.authorization === undefined));
  });
});

async function failure(promise: Promise<unknown>): Promise<StoreError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(isStoreError(error), String(error));
    return error;
  }
  return assert.fail("It did not fail");
}
