import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { InterruptedError } from "../../../lib/cli/exit_codes.ts";
import { parseCommandLine } from "../../../lib/cli/parser.ts";
import { report } from "../../../lib/cli/run.ts";
import { command } from "../../../lib/commands/restore.ts";
import { parseTimestamp } from "../../../lib/backup/timestamp.ts";
import { dataArchive, recordingLog, type Workspace, workspace } from "../restore/fixtures.ts";
import { archive, member } from "../restore/raw_tar.ts";

interface Outcome {
  readonly code: number;
  readonly lines: readonly string[];
  readonly stdout: string;
}

async function run(words: readonly string[], signal?: AbortSignal): Promise<Outcome> {
  const parsed = parseCommandLine(command, words, "barman-cloud-restore", 80);
  if (parsed.kind === "exit") {
    return { code: parsed.code, lines: [parsed.stderr], stdout: parsed.stdout };
  }
  const { log, lines } = recordingLog();
  let stdout = "";
  const context = {
    program: "barman-cloud-restore",
    env: {},
    log,
    signal: signal ?? new AbortController().signal,
    stdout: (text: string) => void (stdout += text),
    stderr: () => {},
    stderrIsTerminal: false,
    now: () => new Date(),
  };
  try {
    return { code: await command.run(parsed.values, context), lines, stdout };
  } catch (error) {
    return { code: report(error, log), lines, stdout };
  }
}

async function withBackups(use: (space: Workspace, pgdata: string) => Promise<void>) {
  await using space = await workspace();
  await space.putInfo("20260101T000000", {
    backupName: "nightly",
    endTime: parseTimestamp("2026-01-01 00:10:00+00:00"),
    endXlog: "0/3000000",
  });
  await space.put("20260101T000000", "data.tar", dataArchive(member({ name: "first" })));
  await space.putInfo("20260102T000000", {
    endTime: parseTimestamp("2026-01-02 00:10:00+00:00"),
    endXlog: "0/5000000",
    timeline: 2,
    tablespaces: [{ name: "ts1", oid: 16384, location: join(space.directory, "old-ts1") }],
  });
  await space.put("20260102T000000", "data.tar", dataArchive(member({ name: "second" })));
  await space.put("20260102T000000", "16384.tar", archive(member({ name: "PG_17_1", type: "5" })));
  await space.putInfo("20260103T000000", { status: "FAILED", endTime: null, endXlog: null });
  await use(space, join(space.directory, "pgdata"));
}

const assertCode = (outcome: Outcome, code: number, message: RegExp) => {
  assert.equal(outcome.code, code, outcome.lines.join("\n"));
  assert.match(outcome.lines.at(-1) ?? "", message);
  assert.equal(outcome.stdout, "");
};

Deno.test("restore command: by id, name and shortcut, and for auto", () =>
  withBackups(async (space, pgdata) => {
    const restores = async (file: string, ...words: string[]) => {
      const target = `${pgdata}-${words.join("-").replaceAll(/[^\w-]/g, "_")}`;
      const ts = join(target, "ts1");
      const [backup = "", ...options] = words;
      const outcome = await run(
        [space.url, "main", backup, target, ...options, "--tablespace", `ts1:${ts}`],
      );
      assert.equal(outcome.code, 0, outcome.lines.join("\n"));
      assert.equal(outcome.stdout, "");
      assert(existsSync(join(target, file)), words.join(" "));
    };
    await restores("first", "20260101T000000");
    await restores("first", "nightly");
    await restores("first", "oldest");
    await restores("second", "auto");
    await restores("first", "auto", "--target-tli", "1");
    await restores("first", "auto", "--target-time", "2026-01-02 00:09:59+00");
    await restores("second", "auto", "--target-lsn", "0/5000000");
    await restores("first", "auto", "--target-lsn=0/4FFFFFF");
    await space.putWal("00000002.history");
    await restores("second", "auto", "--target-tli", "latest");
  }));

Deno.test("restore command: tablespace rules; targets without auto are ignored", () =>
  withBackups(async (space, pgdata) => {
    const moved = join(space.directory, "with:colon");
    const words = ["20260102T000000", pgdata, "--target-lsn", "0/0", "--jobs", "1"];
    const rules = ["--tablespace", "ts1:/first", `--tablespace=ts1:${moved}`];
    const outcome = await run([space.url, "main", ...words, ...rules]);
    assert.equal(outcome.code, 0, outcome.lines.join("\n"));
    assert.match(outcome.lines.find((line) => line.startsWith("WARNING")) ?? "", /ignored/);
    assert.equal(readlinkSync(join(pgdata, "pg_tblspc/16384")), moved);
    assert.equal(readFileSync(join(pgdata, "PG_VERSION"), "utf8"), "17\n");
  }));

Deno.test("restore command: exit codes", () =>
  withBackups(async (space, pgdata) => {
    const restore = (...words: string[]) => run([space.url, "main", ...words]);
    assertCode(await restore("20250101T000000", pgdata), 1, /20250101T000000.*does not exist/);
    assertCode(await restore("unknown", pgdata), 4, /Unknown backup 'unknown'/);
    assertCode(await restore("last", pgdata), 1, /20260103T000000 has no archive data\.tar/);
    const auto = ["auto", pgdata];
    assertCode(await restore(...auto, "--target-tli", "3"), 1, /No backup .*timeline 3/);
    assertCode(await restore(...auto, "--target-time", "2020-01-01"), 1, /ended by 2020-01-01/);
    assertCode(await restore(...auto, "--target-time", "whenever"), 4, /'whenever'/);
    assertCode(await restore(...auto, "--target-lsn", "whatever"), 4, /'whatever'/);
    assertCode(await restore(...auto, "--target-tli", "current"), 4, /'current'/);
    assertCode(await restore(...auto, "--target-tli", "latest"), 4, /latest timeline/);
    assertCode(await restore(...auto, "--target-tli", "0"), 3, /target-tli/);
    assertCode(await restore(...auto, "--tablespace", "ts1"), 3, /NAME:LOCATION/);
    assertCode(
      await restore(...auto, "--target-lsn", "0/1", "--target-time", "2026-01-01"),
      3,
      /not allowed with/,
    );
    assertCode(await restore("auto"), 3, /recovery_dir/);
    mkdirSync(pgdata);
    writeFileSync(join(pgdata, "file"), "");
    assertCode(await restore("nightly", pgdata), 1, /not empty/);
    await space.put("20260101T000000", "data.tar", new Uint8Array(100));
    assertCode(await restore("nightly", `${pgdata}-2`), 4, /data\.tar: .*cut off/);
    const nowhere = `${space.url}/nowhere`;
    assertCode(await run(["-t", space.url, "main", "auto", pgdata]), 0, /works/);
    assertCode(await run(["-t", nowhere, "main", "auto", pgdata]), 1, /There is no/);
  }));

Deno.test("restore command: a signal gives exit code 1", () =>
  withBackups(async (space, pgdata) => {
    const controller = new AbortController();
    controller.abort(new InterruptedError("SIGTERM"));
    const outcome = await run([space.url, "main", "auto", pgdata], controller.signal);
    assertCode(outcome, 1, /Stopped by SIGTERM/);
  }));
