/** What README.md and the help tell to paste is pasted into a shell here: names, paths and times apart, word by word. */
import assert from "node:assert/strict";
import { chmod, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { TestPostgres } from "../../scripts/servers/embedded_postgres.ts";
import { archiveCurrentSegment } from "../../scripts/servers/write_load.ts";
import { COMMANDS } from "../../lib/cli/commands.ts";
import { barmanCloud, runProgram, type RunResult } from "./executable.ts";
import { type Host, makeDirectory, newHost } from "./host.ts";
import { serverUser } from "../../scripts/servers/embedded_postgres.ts";
import { testOnStores } from "./stores.ts";

const SERVER = "main";

testOnStores("README's five minutes, pasted", async (store) => {
  const text = await readFile(new URL("../../README.md", import.meta.url), "utf8");
  const start = /\n## Five-minute start\n([^]*?)\n## /.exec(text)?.[1] ?? "";
  const blocks = [...start.matchAll(/```(\w+)\n([^]*?)```/g)];
  assert.deepEqual(blocks.map(([, kind]) => kind), ["ini", "sh", "sh", "sh"]);
  const [settings = "", backup = "", restore = "", remove = ""] = blocks.map(([, , code]) => code);

  await using host = await newHost(store);
  const shell = await newShell(host);
  const given = Object.fromEntries(
    [...settings.matchAll(/^(\w+) = '?(.*?)'?$/gm)].map(([, name = "", value = ""]) =>
      [name, value.replaceAll("s3://my-bucket/pg", store.url)] as const
    ),
  );
  assert.deepEqual(Object.keys(given), ["archive_mode", "archive_command"]);
  const primary = await host.start({
    settings: {
      ...given,
      // The server of the test does not have the environment of the shell.
      archive_command: `${shell.variables} ${given["archive_command"]}`,
    },
  });
  await primary.query("create table kept as select 1 as x");
  const directory = host.newPath("restored");
  const log = host.newPath("log");
  const paste = async (code: string, target = ""): Promise<RunResult> => {
    const here = replaceAll(code, {
      "s3://my-bucket/pg": store.url,
      "/var/lib/postgresql/18/main": directory,
      "2026-11-22 14:30:00+00": target,
      "pg_ctl ": `pg_ctl -l '${log}' -o '-k ${primary.socketDirectory}' `,
    });
    const result = await shell.run(here, primary);
    assert.equal(result.code, 0, `${here}\n${result.stdout}${result.stderr}`);
    return result;
  };

  assert.match((await paste(backup)).stdout, /^\d{8}T\d{6} /m);
  await primary.query("create table wanted as select 2 as x");
  const [row] = await primary.query("select clock_timestamp()::text as now");
  await primary.query("create table late as select 3 as x");
  await archiveCurrentSegment(primary);
  await primary.stop();
  try {
    await paste(restore, String(row?.["now"]));
    await primary.waitUntilReady({ promoted: true }).catch(async (error) => {
      throw new Error(`${error.message}\nIts log: ${await readFile(log, "utf8")}`);
    });
    const tables = await primary.query(
      "select relname from pg_class where relname in ('kept', 'wanted', 'late') order by relname",
    );
    assert.deepEqual(tables.map(({ relname }) => relname), ["kept", "wanted"]);
  } finally {
    await shell.run(`pg_ctl -D '${directory}' -m immediate stop`, primary);
  }
  await paste(remove);
}, ["s3"]);

/** Those that change the archive last. */
const ORDER = ["check-wal-archive", "wal-archive", "backup", "backup-list", "backup-show"];
const LAST = ["wal-verify", "backup-delete"];

testOnStores("every example of every help, pasted", async (store) => {
  await using host = await newHost(store);
  const shell = await newShell(host);
  const directory = makeDirectory(host.newPath("store"));
  const other = `file://${directory}`;
  const archive = `${shell.variables} barman-cloud wal-archive`;
  const primary = await host.start({
    settings: {
      archive_command: `${archive} ${store.url} ${SERVER} %p && ${archive} ${other} ${SERVER} %p`,
    },
  });
  await primary.query("create role backup superuser login");

  const names = COMMANDS.map(({ name }) => name);
  const between = names.filter((name) => ![...ORDER, ...LAST].includes(name));
  const ids: Record<string, string> = {};
  let pasted = 0;
  for (const name of [...ORDER, ...between, ...LAST]) {
    if (name === "backup-list") {
      // What the examples from here on take for granted.
      for (const url of [store.url, other]) {
        for (const backup of ["nightly", "yearly"]) {
          const words = `--immediate-checkpoint -n ${backup} '${url}' ${SERVER}`;
          const made = await shell.run(`barman-cloud backup ${words}`, primary);
          assert.equal(made.code, 0, made.stderr);
        }
        const list = await shell.run(
          `barman-cloud backup-list --format json '${url}' ${SERVER}`,
          primary,
        );
        ids[url] = JSON.parse(list.stdout).backups_list[0].backup_id;
      }
    }
    // So that the segment that is archived by hand is complete, and at the end no WAL of a backup is missing.
    if (name === "wal-archive" || name === "wal-verify") await archiveCurrentSegment(primary);
    for (const example of examplesOf(await helpOf(name))) {
      const local = example.includes("file://");
      const code = replaceAll(example, {
        "s3://my-bucket/pg": store.url,
        "s3://backups/pg": store.url,
        "s3://bucket/backups": store.url,
        "https://s3.example.com": store.endpoint ?? "",
        "file:///srv/backup": other,
        "file:///backups": other,
        "/var/lib/postgresql/17/main/pg_wal": join(primary.dataDirectory, "pg_wal"),
        "/var/lib/postgresql/17/main": host.newPath("data"),
        "/srv/pg": host.newPath("data"),
        "/srv/ts1": host.newPath("ts1"),
        "/var/run/postgresql": primary.socketDirectory,
        "/usr/local/bin": makeDirectory(host.newPath("links")),
        "/tmp/0": join(host.directory, "0"),
        "20260115T103000": ids[local ? other : store.url] ?? "",
        "2026-01-15 10:30:00+01": new Date().toISOString(),
        // As the server does it.
        "%p": join(primary.dataDirectory, "pg_wal", "000000010000000000000001"),
      });
      if (code.includes("%f")) continue; // restore_command: the README's is pasted above.
      const result = await shell.run(code, primary);
      assert.equal(result.code, 0, `${code}\n${result.stdout}${result.stderr}`);
      pasted += 1;
    }
  }
  assert.ok(pasted >= 2 * names.length, `${pasted} examples`);
}, ["s3"]);

async function helpOf(name: string): Promise<string> {
  const { stdout, code } = await barmanCloud([name, "--help"], { env: { COLUMNS: "500" } });
  assert.equal(code, 0);
  return stdout;
}

/** The commands below `examples:`; a setting's value is one too. Snapshots of disks need a cloud. */
function examplesOf(help: string): string[] {
  const [, text = ""] = /\nexamples:\n([^]*)$/.exec(help) ?? [];
  const lines = text.split("\n").map((line) => line.trim());
  return lines.filter((line) =>
    line !== "" && !line.startsWith("#") && !line.includes("--snapshot")
  )
    .map((line) => /^\w+_command = '(.*)'$/.exec(line)?.[1] ?? line);
}

interface Shell {
  /** `env NAME=VALUE …` with what the shell has, for commands that PostgreSQL runs. */
  readonly variables: string;
  run(code: string, server: TestPostgres): Promise<RunResult>;
}

/** A shell of PostgreSQL's user in which `barman-cloud` and PostgreSQL's programs are found. */
async function newShell({ store, executable, directory, newPath }: Host): Promise<Shell> {
  const bin = makeDirectory(newPath("bin"));
  await symlink(executable, join(bin, "barman-cloud"));
  // Not among npm's binaries of PostgreSQL.
  await writeFile(join(bin, "pg_waldump"), '#!/bin/sh\nexec test -s "$1"\n');
  await chmod(join(bin, "pg_waldump"), 0o755);
  const env: Record<string, string> = { ...store.env, HOME: directory };
  if (store.endpoint !== undefined) env["AWS_ENDPOINT_URL"] = store.endpoint;
  const path = `${bin}:/usr/bin:/bin`;
  const variables = Object.entries({ ...env, PATH: path });
  return {
    variables: `env ${variables.map(([name, value]) => `${name}='${value}'`).join(" ")}`,
    async run(code, server) {
      // pg_ctl leaves a server behind, which must not keep a pipe of ours open.
      const output = newPath("output");
      const redirected = `exec >'${output}' 2>'${output}.err'\n${code}`;
      const result = await runProgram("/bin/sh", ["-euc", redirected], {
        ...(serverUser() ?? {}),
        cwd: directory,
        timeout: 120_000,
        env: {
          ...env,
          PATH: `${path}:${server.bin}`,
          PGHOST: server.socketDirectory,
          PGPORT: String(server.port),
          PGUSER: server.user,
        },
      });
      return {
        ...result,
        stdout: await readFile(output, "utf8"),
        stderr: await readFile(`${output}.err`, "utf8"),
      };
    },
  };
}

function replaceAll(text: string, by: Readonly<Record<string, string>>): string {
  let result = text;
  for (const [from, to] of Object.entries(by)) result = result.replaceAll(from, to);
  return result;
}
