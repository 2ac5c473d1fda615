import { mkdir, readlink, rename, rm, symlink } from "node:fs/promises";
import { join, resolve } from "node:path";
import { defineCommand } from "../cli/command.ts";
import { COMMANDS } from "../cli/commands.ts";
import { CommandError, EXIT } from "../cli/exit_codes.ts";
import { flag, optionalPositional } from "../cli/options.ts";

export const command = defineCommand({
  name: "links",
  summary: "make the nine names of Barman's commands in a directory",
  description:
    "Make symbolic links barman-cloud-backup, barman-cloud-wal-archive and so on to this executable. " +
    "Links that exist are replaced; anything else of such a name is left alone unless --force is given.",
  positionals: [
    optionalPositional("directory", "where the links are made (default: beside the executable)"),
  ],
  options: [
    flag("force", ["--force"], "replace files of these names too (say, those of Barman's package)"),
  ],
  examples: [
    ["install for everyone", "barman-cloud links /usr/local/bin"],
  ],
}, async ({ directory, force }, { log }) => {
  const executable = resolve(process.execPath);
  const target = resolve(directory ?? join(executable, ".."));
  await mkdir(target, { recursive: true });
  for (const { name, barman } of COMMANDS) {
    if (!barman) continue;
    const link = join(target, `barman-cloud-${name}`);
    if (!force && !(await isLinkOrAbsent(link))) {
      throw new CommandError(
        EXIT.generalError,
        `Cannot make ${link}: a file of that name is there (use --force to replace it)`,
      );
    }
    // Link under another name first: a running archive_command never finds the name missing.
    const temporary = `${link}.${process.pid}.new`;
    try {
      await symlink(executable, temporary);
      await rename(temporary, link);
    } catch (error) {
      await rm(temporary, { force: true });
      const reason = error instanceof Error ? error.message : String(error);
      throw new CommandError(EXIT.generalError, `Cannot make ${link}: ${reason}`, { cause: error });
    }
    log.info(`Made ${link}`);
  }
  return EXIT.success;
});

async function isLinkOrAbsent(path: string): Promise<boolean> {
  try {
    await readlink(path);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "ENOENT";
  }
}
