/**
 * Makes the released executable: esbuild bundles (split, so that a provider's code is loaded only when used), Bun
 * compiles to bytecode and joins it with its runtime into one file.
 *
 *   deno task compile                           dist/barman-cloud for this host
 *   deno task compile --target linux-arm64      dist/barman-cloud-linux-arm64
 *   deno task compile --target all
 */
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build, type Metafile, type Plugin, stop } from "esbuild";
import { isBuiltin } from "node:module";
import { WORKERS } from "../lib/compression/worker_files.ts";
import { ensureBun } from "./servers/npm_package.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** What can be compiled for, by the names of Bun's `--target`. `baseline` is for CPUs without AVX2. */
const BUN_TARGETS = [
  "bun-linux-x64",
  "bun-linux-x64-baseline",
  "bun-linux-arm64",
  "bun-linux-x64-musl",
  "bun-linux-arm64-musl",
  "bun-darwin-arm64",
] as const;
type BunTarget = (typeof BUN_TARGETS)[number];

/** A bare `fs` means Node's; Bun's bundler would take it for a package when splitting. */
const nodePrefix: Plugin = {
  name: "node-prefix",
  setup(builder) {
    builder.onResolve({ filter: /^[a-z_/]+$/ }, ({ path }) => {
      return isBuiltin(path) ? { path: `node:${path}`, external: true } : undefined;
    });
  },
};

/**
 * Some packages look for others that may or may not be installed. Left in, such a name would be looked for at run time,
 * by Bun below the working directory too: a data directory could bring code of its own. So it is absent, for good.
 */
const absentPackages: Plugin = {
  name: "absent-packages",
  setup(builder) {
    const namespace = "absent";
    builder.onResolve({ filter: /^[^./]/ }, async ({ path, pluginData, ...options }) => {
      if (pluginData === namespace || isBuiltin(path)) return undefined;
      const { errors } = await builder.resolve(path, { ...options, pluginData: namespace });
      return errors.length === 0 ? undefined : { path, namespace };
    });
    builder.onLoad({ filter: /.*/, namespace }, ({ path }) => {
      const message = JSON.stringify(`Cannot find package '${path}'`);
      return {
        contents: `throw Object.assign(new Error(${message}), { code: "MODULE_NOT_FOUND" });`,
      };
    });
  },
};

/** CommonJS packages inside an ES module expect this one. */
const BANNER = [
  `import { createRequire as __createRequire } from "node:module";`,
  `const require = __createRequire(import.meta.url);`,
].join("\n");

/** Bundle into a directory of ES modules; the entry is `main.js`. */
export async function bundle(directory: string): Promise<Metafile> {
  await rm(directory, { recursive: true, force: true });
  const { metafile } = await build({
    absWorkingDir: ROOT,
    // Worker threads need a file of their own, beside the others.
    entryPoints: [
      "main.ts",
      ...WORKERS.map((name) => ({ in: `lib/compression/${name}.ts`, out: name })),
    ],
    outdir: directory,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "esnext",
    keepNames: true,
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: "none",
    banner: { js: BANNER },
    // Replaced where a module means the CommonJS variables, not where it declares such names itself.
    define: { __filename: "import.meta.filename", __dirname: "import.meta.dirname" },
    plugins: [nodePrefix, absentPackages],
    logLevel: "warning",
    metafile: true,
  });
  const outside = Object.values(metafile.outputs).flatMap(({ imports }) => imports)
    .filter(({ path, external }) => external === true && !isBuiltin(path));
  if (outside.length > 0) {
    const names = [...new Set(outside.map(({ path }) => path))].join(", ");
    throw new Error(`Cannot bundle: ${names} would be looked for at run time`);
  }
  return metafile;
}

/** Compile for one target. @returns the path of the executable */
export async function compile(target: BunTarget, output: string): Promise<string> {
  await mkdir(join(output, ".."), { recursive: true });
  // A directory of its own beside the output, so that builds at the same time do not meet. Its name does not get
  // into the executable: Bun is run inside it and sees relative paths only.
  const directory = await mkdtemp(`${output}.build-`);
  try {
    return await compileIn(directory, target, output);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function compileIn(
  directory: string,
  target: BunTarget,
  output: string,
): Promise<string> {
  await bundle(directory);
  const bun = await ensureBun();
  const runtime = await ensureBun(target);
  const { code, stdout, stderr } = await new Deno.Command(bun, {
    args: [
      "build",
      "--compile",
      `--target=${target}`,
      `--compile-executable-path=${runtime}`,
      "--minify",
      "--bytecode",
      "--splitting",
      "--format=esm",
      // By default an executable reads .env and runs bunfig.toml's preload from the working directory: PGDATA.
      // For lib/backup/garbage.ts.
      "--compile-exec-argv=--expose-gc",
      "--no-compile-autoload-dotenv",
      "--no-compile-autoload-bunfig",
      "--no-compile-autoload-tsconfig",
      "--no-compile-autoload-package-json",
      "--outfile",
      "barman-cloud",
      "./main.js",
      ...WORKERS.map((name) => `./${name}.js`),
    ],
    cwd: directory,
    env: { BUN_OPTIONS: "", BUN_BE_BUN: "" },
  }).output();
  if (code !== 0) {
    const text = new TextDecoder().decode(stderr) + new TextDecoder().decode(stdout);
    throw new Error(`Cannot compile for ${target}: bun build ended with ${code}\n${text}`);
  }
  await rename(join(directory, "barman-cloud"), output);
  return output;
}

/** The host's executable, compiled if it is not there or older than the sources. */
export async function ensureExecutable(): Promise<string> {
  const output = join(ROOT, "dist", "barman-cloud");
  const built = await stat(output).then((found) => found.mtimeMs, () => 0);
  if (built < await newestSource()) await compile(hostBunTarget(), output);
  return output;
}

async function newestSource(): Promise<number> {
  let newest = 0;
  const visit = async (path: string): Promise<void> => {
    const found = await Deno.stat(path);
    if (found.isFile) newest = Math.max(newest, found.mtime?.getTime() ?? 0);
    else for await (const entry of Deno.readDir(path)) await visit(join(path, entry.name));
  };
  for (
    const name of ["main.ts", "lib", "providers", "deno.json", "deno.lock", "scripts/compile.ts"]
  ) {
    await visit(join(ROOT, name));
  }
  return newest;
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: Deno.args.filter((word) => word !== "--"),
    options: { target: { type: "string" }, output: { type: "string" } },
  });
  const targets = targetsOf(values.target);
  for (const { target, name } of targets) {
    const output = values.output ?? join(ROOT, "dist", name);
    await compile(target, output);
    const { size } = await stat(output);
    console.log(`${output} (${target}, ${(size / 1048576).toFixed(0)} MiB)`);
  }
  await stop();
}

/** The target for this machine; musl where glibc's loader is absent, baseline where the CPU has no AVX2. */
function hostBunTarget(): BunTarget {
  const arm = process.arch === "arm64";
  if (process.platform === "darwin") return "bun-darwin-arm64";
  const musl = existsSync(arm ? "/lib/ld-musl-aarch64.so.1" : "/lib/ld-musl-x86_64.so.1") &&
    !existsSync(arm ? "/lib/ld-linux-aarch64.so.1" : "/lib64/ld-linux-x86-64.so.2");
  if (arm) return musl ? "bun-linux-arm64-musl" : "bun-linux-arm64";
  if (musl) return "bun-linux-x64-musl";
  return /\bavx2\b/.test(readFileSync("/proc/cpuinfo", "utf8"))
    ? "bun-linux-x64"
    : "bun-linux-x64-baseline";
}

function targetsOf(wanted: string | undefined): { target: BunTarget; name: string }[] {
  if (wanted === undefined || wanted === "host") {
    return [{ target: hostBunTarget(), name: "barman-cloud" }];
  }
  const all = BUN_TARGETS.map((target) => ({
    target,
    name: `barman-cloud-${target.replace(/^bun-/, "")}`,
  }));
  if (wanted === "all") return all;
  const found = all.filter(({ target }) => target === wanted || target === `bun-${wanted}`);
  if (found.length === 0) {
    const names = BUN_TARGETS.map((target) => target.replace(/^bun-/, "")).join(", ");
    throw new Error(`There is no target '${wanted}' (host, all, ${names})`);
  }
  return found;
}
