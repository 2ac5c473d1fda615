/** A findmnt for tests, found by PATH: it knows the mounts that it is told. */
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Mounted file systems: device → mount point, options. */
export type MountTable = Map<string, readonly [mountPoint: string, options: string]>;

export interface Findmnt {
  /** The value of PATH by which it is found, and what else a system has. */
  readonly path: string;
  tell(mounts: MountTable): void;
}

export function installFindmnt(directory: string): Findmnt {
  const table = join(directory, "mounts");
  const program = join(directory, "findmnt");
  writeFileSync(program, SCRIPT.replaceAll("@TABLE@", table));
  chmodSync(program, 0o755);
  return {
    path: `${directory}:/usr/bin:/bin`,
    tell(mounts) {
      const lines = [...mounts].map(([device, [mountPoint, options]]) =>
        `${device} ${mountPoint.replaceAll(" ", "\\x20")} / ${device} ${options}\n`
      );
      writeFileSync(table, lines.join(""));
    },
  };
}

/** As ours calls it: by `--source` or `--target`, four columns; and as Barman does: `-o TARGET,OPTIONS -n DEVICE`. */
const SCRIPT = `#!/bin/sh
columns=all
while [ $# -gt 0 ]; do
  case $1 in
    --source) source=$2; shift ;;
    --target) target=$2; shift ;;
    -o) columns=$2; shift ;;
    /*) source=$1 ;;
  esac
  shift
done
found=1
while read -r device mount root origin options; do
  if [ -n "$target" ]; then
    case "$target/" in "$mount"/*) echo "$mount $root $origin $options"; exit 0 ;; esac
  elif [ "$device" = "$source" ]; then
    if [ "$columns" = TARGET,OPTIONS ]; then echo "$mount $options"; else echo "$mount $root $origin $options"; fi
    found=0
  fi
done <'@TABLE@'
exit $found
`;
