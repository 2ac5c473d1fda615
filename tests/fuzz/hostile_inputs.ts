/**
 * What the fuzz tests share: a runner with printed seeds and pasteable failures, and generators of hostile inputs.
 *
 * Most inputs are valid ones with a few edits that know the format (numbers made absurd, pieces doubled, names that
 * lead elsewhere): those get past the first check, where random bytes end.
 *
 *   FUZZ_SEED=123      the same inputs again
 *   FUZZ_RUNS=100000   so many inputs of each kind
 *   FUZZ_SECONDS=600   each kind for so long, however many inputs that are
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { redactor } from "../../lib/cli/redact.ts";

/** 31 bits; a new one in each run, so that CI goes on looking. */
const SEED = numberFrom("FUZZ_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
const RUNS = numberFrom("FUZZ_RUNS");
const SECONDS = numberFrom("FUZZ_SECONDS");
/** Nothing takes so long unless it hangs; a slow machine under load is no failure. */
const HANG_MS = 120_000;

function numberFrom(name: string): number | undefined {
  const text = Deno.env.get(name);
  if (text === undefined || text === "") return undefined;
  assert.match(text, /^-?\d+$/, `${name} must be a number`);
  return Number(text);
}

export interface FuzzPlan<T> {
  /** Inputs in CI; the sum over all tests is at least fifty thousand. */
  readonly runs: number;
  readonly input: fc.Arbitrary<T>;
  /** An expression that makes the input again in a regression test. */
  readonly show?: (input: T) => string;
}

/** A test that gives many inputs to `check`, which throws when something is wrong. */
export function fuzz<T>(
  name: string,
  { runs, input, show = shown }: FuzzPlan<T>,
  check: (input: T) => void | Promise<void>,
): void {
  Deno.test(`fuzz: ${name}`, async () => {
    const watch = startWatch(`fuzz: ${name}: seed ${SEED}`);
    try {
      const property = fc.asyncProperty(input, async (each) => {
        watch.next();
        await check(each);
      });
      const details = await fc.check(property, {
        seed: SEED | 0,
        numRuns: SECONDS === undefined ? RUNS ?? runs : 2 ** 31 - 1,
        ...(SECONDS === undefined
          ? {}
          : { interruptAfterTimeLimit: SECONDS * 1000, markInterruptAsFailure: false }),
      });
      console.log(`fuzz: ${name}: ${details.numRuns} inputs, seed ${SEED}`);
      if (!details.failed) return;
      const [worst] = details.counterexample ?? [];
      const error = details.errorInstance;
      throw new Error(
        `FUZZ_SEED=${SEED} (path ${details.counterexamplePath}) fails after ${details.numRuns} inputs.\n` +
          `For a regression test:\n${worst === undefined ? "(no input)" : show(worst as T)}\n` +
          `${error instanceof Error ? error.stack ?? error.message : String(error)}`,
      );
    } finally {
      watch.stop();
    }
  });
}

/** JavaScript that gives the value; bytes as hexadecimal digits. */
export function shown(value: unknown): string {
  if (value instanceof Uint8Array) return `fromHex("${hexOf(value)}")`;
  if (Array.isArray(value)) return `[${value.map(shown).join(", ")}]`;
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).map(([key, each]) =>
      `${JSON.stringify(key)}: ${shown(each)}`
    );
    return `{ ${entries.join(", ")} }`;
  }
  return String(value);
}

function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * An endless loop blocks all timers of this thread, so another thread looks at a counter; it ends the process, since
 * nothing else can.
 */
function startWatch(what: string): { next(): void; stop(): void } {
  const counter = new Int32Array(new SharedArrayBuffer(4));
  const source = `
    let before = -1;
    onmessage = ({ data: { counter, what, pid, after } }) => setInterval(() => {
      if (counter[0] === before) {
        console.error(what + ": input number " + before + " hangs (FUZZ_RUNS=" + before + " ends with it)");
        Deno.kill(pid, "SIGKILL");
      }
      before = counter[0];
    }, after);`;
  const worker = new Worker(`data:text/javascript,${encodeURIComponent(source)}`, {
    type: "module",
  });
  worker.postMessage({ counter, what, pid: Deno.pid, after: HANG_MS });
  return {
    next: () => void Atomics.add(counter, 0, 1),
    stop: () => worker.terminate(),
  };
}

/** Secrets as they lie in environments, URLs and files; none of these texts may come out anywhere. */
export const SECRETS = {
  awsKey: "wJalrXUtnFEMIfuzzSECRETkey0123456789abcd",
  awsToken: "FwoGZXIvYXdzEfuzzSESSIONtoken0123456789==",
  azureKey: "ZnV6ekFaVVJFa2V5MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3A9PQ==",
  sas: "fuzzSASsignature0123456789abcdef%2Bxyz%3D",
  url: "fuzzURLpassw0rd-9f8e7d",
  postgres: "fuzzPGpassw0rd-1a2b3c",
  client: "fuzzCLIENTsecret-4d5e6f",
} as const;

/** An environment in which every secret is set where it usually is. */
export const SECRET_ENVIRONMENT: Readonly<Record<string, string>> = {
  AWS_ACCESS_KEY_ID: "AKIAFUZZ00000000000A",
  AWS_SECRET_ACCESS_KEY: SECRETS.awsKey,
  AWS_SESSION_TOKEN: SECRETS.awsToken,
  AWS_REGION: "eu-west-1",
  AZURE_STORAGE_ACCOUNT: "fuzzaccount",
  AZURE_STORAGE_KEY: SECRETS.azureKey,
  AZURE_CLIENT_SECRET: SECRETS.client,
  PGPASSWORD: SECRETS.postgres,
};

const redact = redactor({
  ...SECRET_ENVIRONMENT,
  AZURE_STORAGE_SAS_TOKEN: `?sv=2024&sig=${SECRETS.sas}`,
});

/** @throws {AssertionError} when a planted secret, as it is or percent-encoded or decoded, is in the text */
export function holdsNoSecret(text: string, where: string): void {
  for (const [name, secret] of Object.entries(SECRETS)) {
    for (const form of new Set([secret, encodeURIComponent(secret), decodeURIComponent(secret)])) {
      assert.ok(!text.includes(form), `The secret ${name} is in ${where}: ${text.slice(0, 2000)}`);
    }
  }
}

// deno-lint-ignore no-explicit-any -- whatever a class of errors is made with
export type ErrorClass = abstract new (...given: any[]) => Error;

/** @throws what is none of the documented errors, or an error whose text tells too much */
export function requireDocumented(error: unknown, documented: readonly ErrorClass[]): void {
  if (!documented.some((each) => error instanceof each)) throw error;
  const { message } = error as Error;
  assert.ok(message.length > 0, "an error has no message");
  // As it would be shown.
  holdsNoSecret(redact(message), "a message");
}

/** What the call returns; undefined when it threw one of the documented errors. */
export function outcome<T>(call: () => T, ...documented: readonly ErrorClass[]): T | undefined {
  try {
    return call();
  } catch (error) {
    requireDocumented(error, documented);
    return undefined;
  }
}

export async function outcomeOf<T>(
  call: () => Promise<T>,
  ...documented: readonly ErrorClass[]
): Promise<T | undefined> {
  try {
    return await call();
  } catch (error) {
    requireDocumented(error, documented);
    return undefined;
  }
}

/** Numbers that are too large, too small, or none. */
export const ABSURD_NUMBERS = [
  "0",
  "-1",
  "00",
  "+5",
  "1e999",
  "-0",
  "0x10",
  "NaN",
  "Infinity",
  "2147483648",
  "4294967295",
  "4294967296",
  "9007199254740993",
  "18446744073709551615",
  "18446744073709551616",
  "9".repeat(400),
  "1_000",
  "1__0",
  "\u0663",
  "1.5",
  "",
] as const;

/** Names that lead elsewhere, that terminals obey, that JavaScript finds special, that are no names. */
export const NASTY_NAMES = [
  "..",
  ".",
  "/",
  "//",
  "../../../../etc/passwd",
  "/etc/passwd",
  "a/../../b",
  "./a/./b",
  "a//b",
  "a/",
  "",
  " ",
  "a\0b",
  "a\nb",
  "a\r\n2026-01-01 00:00:00,000 [1] ERROR: forged",
  "\u001b[31mred\u001b[0m\u001b]0;title\u0007",
  "\u202egnp.exe",
  "\ud800",
  "\udcff\udc80",
  "é",
  "e\u0301",
  "\ufeff",
  "__proto__",
  "constructor",
  "toString",
  "%00",
  "%2e%2e%2f",
  "%",
  "%zz",
  "a b",
  "'\"`$(id)",
  "C:\\windows",
  "x".repeat(255),
  "x".repeat(256),
  "d/".repeat(300),
  "-rf",
  "None",
  "null",
  "\u0000",
  "\u007f\u0080\u009b31m",
] as const;

/** Texts near the samples: a few edits each, with words that matter in the format. */
export function textNear(
  samples: readonly string[],
  words: readonly string[] = [],
): fc.Arbitrary<string> {
  const word = fc.oneof(
    fc.constantFrom(...(words.length === 0 ? NASTY_NAMES : words)),
    fc.constantFrom(...NASTY_NAMES),
    fc.constantFrom(...ABSURD_NUMBERS),
    fc.string({ maxLength: 8, unit: "binary" }),
    fc.tuple(fc.constantFrom("[", "(", "{", "<", " ", "\\", "'", "0", "a", "é", "\t"), fc.nat(3000))
      .map(([text, count]) => text.repeat(count)),
  );
  const place = fc.double({ min: 0, max: 1, noNaN: true });
  const edit = fc.record({
    kind: fc.constantFrom(
      "insert",
      "replace",
      "delete",
      "double",
      "number",
      "cut",
      "swap",
      "quote",
    ),
    from: place,
    length: fc.nat(20),
    word,
  });
  return fc.tuple(fc.constantFrom(...samples), fc.array(edit, { maxLength: 4 })).map(
    ([sample, edits]) => edits.reduce((text, each) => editedText(text, each), sample),
  );
}

interface TextEdit {
  readonly kind: string;
  readonly from: number;
  readonly length: number;
  readonly word: string;
}

function editedText(text: string, { kind, from, length, word }: TextEdit): string {
  const at = Math.floor(from * text.length);
  const end = Math.min(text.length, at + length);
  switch (kind) {
    case "insert":
      return text.slice(0, at) + word + text.slice(at);
    case "replace":
      return text.slice(0, at) + word + text.slice(end);
    case "delete":
      return text.slice(0, at) + text.slice(end);
    case "double":
      return text.slice(0, end) + text.slice(at);
    case "cut":
      return text.slice(0, at);
    case "swap":
      return text.slice(0, at) + text.slice(end) + text.slice(at, end);
    case "quote":
      return text.slice(0, at) + (`'"\\\n=,:;/?#@&%`[length % 13] ?? "") + text.slice(at);
    default: {
      // A number of the text becomes another one.
      const numbers = [...text.matchAll(/\d+/g)];
      const number = numbers[Math.floor(from * numbers.length)];
      if (number === undefined) return text + word;
      return text.slice(0, number.index) + word + text.slice(number.index + number[0].length);
    }
  }
}

export interface ByteEditOptions {
  /** Where something begins that matters: headers, sizes, checksums. Edits prefer these places. */
  readonly places?: readonly number[];
  readonly maxEdits?: number;
}

/** Bytes near the samples: a few edits each, some of them where the format keeps its numbers. */
export function bytesNear(
  samples: readonly Uint8Array[],
  { places = [], maxEdits = 4 }: ByteEditOptions = {},
): fc.Arbitrary<Uint8Array> {
  const place = fc.double({ min: 0, max: 1, noNaN: true });
  const at = fc.oneof(
    place.map((part) => ({ part })),
    place.map((part) => ({ part: part * part * part })),
    ...(places.length === 0 ? [] : [
      fc.tuple(fc.constantFrom(...places), fc.nat(8)).map(([start, by]) => ({
        exact: start + by,
      })),
    ]),
  );
  const edit = fc.record({
    kind: fc.constantFrom(
      "flip",
      "set",
      "little",
      "big",
      "delete",
      "double",
      "insert",
      "cut",
      "splice",
      "zero",
    ),
    at,
    value: fc.oneof(
      fc.nat(255),
      fc.constantFrom(0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff),
    ),
    length: fc.oneof(fc.nat(16), fc.nat(3000)),
  });
  return fc.tuple(
    fc.constantFrom(...samples),
    fc.constantFrom(...samples),
    fc.array(edit, { maxLength: maxEdits }),
  ).map(([sample, other, edits]) =>
    edits.reduce<Uint8Array>((bytes, each) => editedBytes(bytes, each, other), sample)
  );
}

interface ByteEdit {
  readonly kind: string;
  readonly at: { readonly part: number } | { readonly exact: number };
  readonly value: number;
  readonly length: number;
}

function editedBytes(
  bytes: Uint8Array,
  { kind, at: place, value, length }: ByteEdit,
  other: Uint8Array,
): Uint8Array {
  const at = Math.min(
    bytes.length,
    "exact" in place ? place.exact : Math.floor(place.part * bytes.length),
  );
  const end = Math.min(bytes.length, at + length);
  const changed = (length: number, value: number, little: boolean) => {
    const copy = bytes.slice();
    for (let i = 0; i < length; i++) {
      const shift = 8 * (little ? i : length - 1 - i);
      if (at + i < copy.length) copy[at + i] = Math.floor(value / 2 ** shift) & 255;
    }
    return copy;
  };
  switch (kind) {
    case "flip":
      return changed(1, (bytes[at] ?? 0) ^ (1 << (value & 7)), true);
    case "set":
      return changed(1, value, true);
    case "little":
      return changed(value > 0xffff ? 4 : 2, value, true);
    case "big":
      return changed(value > 0xffff ? 4 : 2, value, false);
    case "delete":
      return joined(bytes.subarray(0, at), bytes.subarray(end));
    case "double":
      return joined(bytes.subarray(0, end), bytes.subarray(at));
    case "insert":
      return joined(
        bytes.subarray(0, at),
        new Uint8Array(length % 64).fill(value),
        bytes.subarray(at),
      );
    case "cut":
      return bytes.subarray(0, at);
    case "zero":
      return bytes.slice().fill(0, at, end);
    default:
      return joined(bytes.subarray(0, at), other.subarray(Math.min(at, other.length)));
  }
}

export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** In pieces of these sizes, over and over; in one piece when there are none. */
export async function* inPieces(
  whole: Uint8Array,
  sizes: readonly number[],
): AsyncGenerator<Uint8Array, void, void> {
  for (let at = 0, i = 0; at < whole.length; i++) {
    const size = Math.max(1, sizes[i % sizes.length] ?? whole.length);
    yield await Promise.resolve(whole.subarray(at, at + size));
    at += size;
  }
}

export const pieceSizes: fc.Arbitrary<number[]> = fc.oneof(
  fc.constant<number[]>([]),
  fc.array(fc.oneof(fc.constantFrom(1, 2, 511, 512, 513), fc.integer({ min: 1, max: 5000 })), {
    minLength: 1,
    maxLength: 3,
  }),
);

export const encoded = (text: string): Uint8Array => new TextEncoder().encode(text);
