#!/bin/sh
# Verifies backups made of disk snapshots on real infrastructure: run it on a database host in the cloud, as the user
# that takes backups. docs/snapshots.md tells more.
#
#   verify_snapshots.sh [--create-volumes] URL OPTIONS-OF-BACKUP…
#
# BARMAN_CLOUD names the executable (barman-cloud in PATH when not set); PGHOST and the like name the server.
set -u

create=no
if [ "${1-}" = --create-volumes ]; then
  create=yes
  shift
fi
if [ $# -lt 3 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 3
fi
url=$1
shift
server="verify-snapshots-$(date +%Y%m%d%H%M%S)"
program=${BARMAN_CLOUD:-barman-cloud}
log=$(mktemp)
failures=0
trap 'rm -f "$log" "$log.out"' EXIT

say() { printf '%s\n' "$*"; }
ok() { say "ok      $*"; }
bad() {
  say "FAILED  $*"
  sed 's/^/        /' "$log"
  failures=$((failures + 1))
}

# Runs a command of barman-cloud: its output into $log.out, its log into $log, its exit code into $code.
cloud() {
  command=$1
  shift
  "$program" "$command" "$@" >"$log.out" 2>"$log"
  code=$?
}

# What the other commands need of the options of backup.
instance=
restore_options=
common=
previous=
for word in "$@"; do
  case $previous in
    --snapshot-instance) instance=$word ;;
    --gcp-zone | --snapshot-zone) restore_options="$restore_options --gcp-zone $word" ;;
    --azure-resource-group) restore_options="$restore_options --azure-resource-group $word" ;;
    --azure-credential | --aws-profile | --cloud-provider | --endpoint-url) common="$common $previous $word" ;;
  esac
  previous=$word
done

say "Server name $server in $url"

# 1. A backup, and what is told of it.
cloud backup -v --immediate-checkpoint "$@" "$url" "$server"
if [ "$code" != 0 ]; then
  bad "backup ended with $code"
  exit 1
fi
ok "a backup was taken"
grep -E 'INFO: (Disk|Snapshots:|Snapshots are|Backup|Locked)' "$log" | sed 's/^/        /'
grep 'WARNING' "$log" | sed 's/^/        /'
# shellcheck disable=SC2086
cloud backup-show $common "$url" "$server" last
if [ "$code" = 0 ] && grep -q '^  Snapshot information:' "$log.out"; then
  ok "backup-show tells of its snapshots"
  sed -n '/^  Snapshot information:/,/^  \(Tablespaces\|Base backup\)/p' "$log.out" | grep ' : ' | sed 's/^/    /'
else
  bad "backup-show ended with $code"
fi

# 2. No disk here was made from its snapshots.
# shellcheck disable=SC2086
cloud restore $common $restore_options --snapshot-recovery-instance "$instance" "$url" "$server" last /nowhere
if [ "$code" = 4 ] && grep -q 'was made from these snapshots' "$log"; then
  ok "restore looks at the disks of $instance and misses those of the backup"
else
  bad "restore ended with $code instead of 4"
fi

# 3. Disks made from them.
if [ "$create" = yes ]; then
  # shellcheck disable=SC2086
  cloud restore -v $common $restore_options --snapshot-recovery-instance "$instance" --create-volumes \
    "$url" "$server" last /nowhere
  if [ "$code" = 0 ]; then
    ok "disks were made and attached; detach and delete them when you have looked at them:"
    grep -E 'INFO: (Created|Attached)|WARNING' "$log" | sed 's/^/        /'
    say "        They would be mounted by:"
    sed 's/^/          /' "$log.out"
    for device in $(sed -n 's/^mount .* \(\/dev\/[^ ]*\) .*/\1/p' "$log.out"); do
      if [ -b "$device" ]; then ok "$device is a block device"; else bad "$device is no block device"; fi
    done
    # shellcheck disable=SC2086
    cloud restore $common $restore_options --snapshot-recovery-instance "$instance" "$url" "$server" last /nowhere
    if [ "$code" = 4 ] && grep -q 'not mounted as they were' "$log"; then
      ok "restore finds these disks, and that they are not mounted"
    else
      bad "restore ended with $code instead of 4"
    fi
  else
    bad "restore --create-volumes ended with $code"
  fi
fi

# 4. A backup that is stopped removes its snapshots.
"$program" backup -v --immediate-checkpoint "$@" "$url" "$server" >"$log.out" 2>"$log" &
pid=$!
waited=0
while kill -0 $pid 2>/dev/null && ! grep -q 'INFO: Snapshots: ' "$log" && [ $waited -lt 600 ]; do
  sleep 1
  waited=$((waited + 1))
done
kill -TERM $pid 2>/dev/null
wait $pid
code=$?
if [ $code = 0 ]; then
  say "skipped the removal after a signal: the snapshots were complete too soon"
elif [ $code = 1 ] && grep -q 'Deleted the snapshots of the failed backup' "$log"; then
  ok "a backup that was stopped deleted its snapshots"
else
  bad "a backup that was stopped ended with $code"
fi

# 5. Everything is deleted again.
# shellcheck disable=SC2086
cloud backup-list $common --format json "$url" "$server"
for id in $(grep -o '"backup_id": "[0-9T]*"' "$log.out" | grep -o '[0-9]*T[0-9]*'); do
  # shellcheck disable=SC2086
  cloud backup-delete -v $common -b "$id" "$url" "$server"
  if [ "$code" = 0 ]; then
    ok "backup $id was deleted"
    grep -E 'snapshot|WARNING' "$log" | sed 's/^/        /'
  else
    bad "backup-delete -b $id ended with $code"
  fi
done

say "Look in the cloud's console: no snapshot whose name ends with one of these ids should be left."
if [ $failures -gt 0 ]; then
  say "$failures FAILED"
  exit 1
fi
say "All is well"
