/** backup.info files as Barman writes them, and what list shows of the first. */

/** PostgreSQL 15, in the object store. */
export const PLAIN = String
  .raw`backup_label='START WAL LOCATION: 0/1A000028 (file 00000001000000000000001A)\nCHECKPOINT LOCATION: 0/1A000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-01-15 10:30:01 UTC\nLABEL: Barman backup cloud 20260115T103000\nSTART TIMELINE: 1\n'
begin_offset=40
begin_time=2026-01-15 10:30:01.123456+00:00
begin_wal=00000001000000000000001A
begin_xlog=0/1A000028
children_backup_ids=None
cluster_size=31234567
compression=None
config_file=/srv/pg/data/postgresql.conf
copy_stats={'total_time': 12.503117, 'number_of_workers': 2, 'analysis_time': 0, 'analysis_time_per_item': {'data': 0}, 'copy_time_per_item': {'data': 12.104615}, 'serialized_copy_time_per_item': {'data': 11.798154}, 'copy_time': 12.104615, 'serialized_copy_time': 11.798154}
data_checksums=on
deduplicated_size=None
encryption=None
end_offset=312
end_time=2026-01-15 10:31:01.407833+00:00
end_wal=00000001000000000000001A
end_xlog=0/1A000138
error=None
hba_file=/srv/pg/data/pg_hba.conf
ident_file=/srv/pg/data/pg_ident.conf
included_files=None
mode=None
parent_backup_id=None
pgdata=/srv/pg/data
server_name=cloud
size=None
status=DONE
summarize_wal=None
systemid=7321456789012345678
tablespaces=None
timeline=1
version=150004
xlog_segment_size=16777216
`;

/** PostgreSQL 17, named, with tablespaces. */
export const WITH_TABLESPACES = String
  .raw`backup_label='START WAL LOCATION: 2/80000028 (file 000000020000000200000080)\nCHECKPOINT LOCATION: 2/80000080\nBACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-01-15 11:30:01 CET\nLABEL: Barman backup cloud 20260115T113000\nSTART TIMELINE: 2\n'
backup_name=before upgrade
begin_offset=40
begin_time=2026-01-15 11:30:01.000120+01:00
begin_wal=000000020000000200000080
begin_xlog=2/80000028
children_backup_ids=None
cluster_size=90194313216
compression=None
config_file=/etc/postgresql/17/main/postgresql.conf
copy_stats={'total_time': 650.172958, 'number_of_workers': 4, 'analysis_time': 0, 'analysis_time_per_item': {'16384': 0, '16385': 0, 'data': 0}, 'copy_time_per_item': {'16384': 120.128134, '16385': 0.023805, 'data': 640.504615}, 'serialized_copy_time_per_item': {'16384': 240.04901, '16385': 0.008766, 'data': 1210.398154}, 'copy_time': 640.504615, 'serialized_copy_time': 1450.45593}
data_checksums=on
deduplicated_size=None
encryption=None
end_offset=344
end_time=2026-01-15 11:40:52+01:00
end_wal=000000020000000200000091
end_xlog=2/91000158
error=None
hba_file=/etc/postgresql/17/main/pg_hba.conf
ident_file=/etc/postgresql/17/main/pg_ident.conf
included_files=['/etc/postgresql/17/main/conf.d/tuning.conf', '/var/lib/postgresql/17/main/postgresql.auto.conf']
mode=None
parent_backup_id=None
pgdata=/var/lib/postgresql/17/main
server_name=cloud
size=None
status=DONE
summarize_wal=off
systemid=7321456789012345678
tablespaces=[('ts1', 16384, '/srv/ts1'), ("it's fast", 16385, '/srv/fast')]
timeline=2
version=170002
xlog_segment_size=16777216
`;

/** Disk snapshots on AWS. */
export const AWS_SNAPSHOTS = String
  .raw`backup_label='START WAL LOCATION: 0/1A000028 (file 00000001000000000000001A)\nCHECKPOINT LOCATION: 0/1A000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-01-15 10:30:01 UTC\nLABEL: Barman backup pg-main 20260115T103000\nSTART TIMELINE: 1\n'
begin_offset=40
begin_time=2026-01-15 10:30:01.123456+00:00
begin_wal=00000001000000000000001A
begin_xlog=0/1A000028
children_backup_ids=None
cluster_size=31234567
compression=None
config_file=/opt/postgres/data/postgresql.conf
copy_stats={'copy_time': 47.143117, 'total_time': 47.143117}
data_checksums=on
deduplicated_size=None
encryption=None
end_offset=312
end_time=2026-01-15 10:30:47.407833+00:00
end_wal=00000001000000000000001A
end_xlog=0/1A000138
error=None
hba_file=/opt/postgres/data/pg_hba.conf
ident_file=/opt/postgres/data/pg_ident.conf
included_files=None
mode=None
parent_backup_id=None
pgdata=/opt/postgres/data
server_name=pg-main
size=None
snapshots_info={'provider': 'aws', 'provider_info': {'account_id': '123456789012', 'region': 'eu-west-1'}, 'snapshots': [{'mount': {'mount_options': 'rw,noatime', 'mount_point': '/opt/postgres'}, 'provider': {'device_name': '/dev/sdf', 'snapshot_id': 'snap-0a1b2c3d4e5f60718', 'snapshot_name': 'data-vol-20260115t103000', 'snapshot_lock_mode': None}}, {'mount': {'mount_options': 'rw,noatime', 'mount_point': '/opt/tbs1'}, 'provider': {'device_name': '/dev/sdg', 'snapshot_id': 'snap-0b2c3d4e5f607182a', 'snapshot_name': 'vol-0fedcba9876543210-20260115t103000', 'snapshot_lock_mode': 'compliance'}}]}
status=DONE
summarize_wal=off
systemid=7321456789012345678
tablespaces=[('tbs1', 16387, '/opt/tbs1')]
timeline=1
version=170002
xlog_segment_size=16777216
`;

/** The line that differs on Azure. */
export const AZURE_LINE = String
  .raw`snapshots_info={'provider': 'azure', 'provider_info': {'subscription_id': '00000000-1111-2222-3333-444444444444', 'resource_group': 'pg-rg'}, 'snapshots': [{'mount': {'mount_options': 'rw,relatime', 'mount_point': '/opt/postgres'}, 'provider': {'location': 'uksouth', 'lun': 10, 'snapshot_name': 'pgdisk0-20260115t103000'}}]}`;

/** The line that differs on Google Cloud. */
export const GCP_LINE = String
  .raw`snapshots_info={'provider': 'gcp', 'provider_info': {'project': 'my-project'}, 'snapshots': [{'mount': {'mount_options': 'rw,noatime', 'mount_point': '/opt/postgres'}, 'provider': {'device_name': 'persistent-disk-1', 'snapshot_name': 'pg-data-20260115t103000', 'snapshot_project': 'my-project'}}]}`;

/** The lines that differ in a failed backup. */
export const FAILED_LINES = String.raw`copy_stats=None
error=failure uploading data (An error occurred (AccessDenied) when calling the UploadPart operation: no)
status=FAILED
`;

/** Output of `backup-list --format json` for a catalogue of one backup. */
export const LIST_JSON = String
  .raw`{"backups_list": [{"backup_label": "'START WAL LOCATION: 0/1A000028 (file 00000001000000000000001A)\\n'", "begin_offset": 40, "begin_time": "Thu Jan 15 10:30:01 2026", "begin_wal": "00000001000000000000001A", "begin_xlog": "0/1A000028", "children_backup_ids": null, "cluster_size": 31234567, "compression": null, "config_file": "/srv/pg/data/postgresql.conf", "copy_stats": {"total_time": 12.5, "number_of_workers": 2, "analysis_time": 0, "analysis_time_per_item": {"data": 0}, "copy_time_per_item": {"data": 12.1}, "serialized_copy_time_per_item": {"data": 11.8}, "copy_time": 12.1, "serialized_copy_time": 11.8}, "data_checksums": "on", "deduplicated_size": null, "encryption": null, "end_offset": 312, "end_time": "Thu Jan 15 10:31:01 2026", "end_wal": "00000001000000000000001A", "end_xlog": "0/1A000138", "error": null, "hba_file": "/srv/pg/data/pg_hba.conf", "ident_file": "/srv/pg/data/pg_ident.conf", "included_files": null, "mode": null, "parent_backup_id": null, "pgdata": "/srv/pg/data", "server_name": "cloud", "size": null, "status": "DONE", "summarize_wal": null, "systemid": "7321456789012345678", "tablespaces": null, "timeline": 1, "version": 150004, "xlog_segment_size": 16777216, "backup_id": "20260115T103000", "begin_time_iso": "2026-01-15T10:30:01.123456+00:00", "end_time_iso": "2026-01-15T10:31:01+00:00"}]}`;

/** A file with some lines replaced by others of the same name. */
export function withLines(text: string, lines: string): string {
  let result = text;
  for (const line of lines.split("\n")) {
    const name = line.slice(0, line.indexOf("="));
    if (name === "") continue;
    const old = new RegExp(`^${name}=.*$`, "m");
    result = old.test(result) ? result.replace(old, () => line) : `${result}${line}\n`;
  }
  return result;
}
