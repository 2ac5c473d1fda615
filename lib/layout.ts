/**
 * Where things are in a bucket: Barman's key layout. `PREFIX/SERVER/base/ID/…` holds base backups,
 * `PREFIX/SERVER/wals/…` the WAL archive.
 */

/** Names the keys of one server below one URL. */
export interface ServerLayout {
  readonly server: string;
  /** `PREFIX/SERVER/base/`: what to list for the backups. */
  readonly base: string;
  /** `PREFIX/SERVER/wals/`: what to list for the WAL archive. */
  readonly wals: string;
  /** `PREFIX/SERVER/wal-identity.json`, which is ours: whose WAL the archive holds. Barman looks into the folders only. */
  readonly identity: string;
  /** `PREFIX/SERVER/wal-claims/NAME`, which is ours: there while a WAL file is archived under several compressions. */
  walClaim(name: string): string;
  /** `PREFIX/SERVER/wal-claims/` */
  readonly walClaims: string;
  /** `PREFIX/SERVER/base/ID/` */
  backup(id: string): string;
  /** `PREFIX/SERVER/base/ID/backup.info` */
  backupInfo(id: string): string;
  /** `PREFIX/SERVER/base/ID/backup_label`: of backups made of disk snapshots only. */
  backupLabel(id: string): string;
  /** `PREFIX/SERVER/base/ID/backup_manifest`, which is ours: the files of the backup, in PostgreSQL's format. */
  manifest(id: string): string;
  /** `PREFIX/SERVER/base/ID/verification.json`, which is ours: what was checked while it was taken. */
  record(id: string): string;
  /** `PREFIX/SERVER/base/ID/running.json`, which is ours: there while the backup is taken. */
  runningMark(id: string): string;
  /** `PREFIX/SERVER/base/ID/deletion-NAME.json`, which is ours: there while somebody deletes the backup. */
  deletionMark(id: string, name: string): string;
  /** `PREFIX/SERVER/base/ID/NAME.tar[.gz]`, from the second on `NAME_0001.tar[.gz]`. */
  archive(id: string, name: string, index: number, extension: string): string;
  /**
   * The keep annotation, by the spelling that Barman uses for the same URL: with a trailing slash in the URL
   * Barman doubles it here and only here.
   */
  annotation(id: string, name: string): string;
  /** Every spelling under which the annotation may have been written, ours first. */
  annotationSpellings(id: string, name: string): readonly string[];
  /**
   * Key of a file of the WAL archive, without compression suffix. Segments, partial and backup-label files lie in
   * a folder named by the first 16 characters in upper case, history files do not.
   */
  wal(name: string): string;
}

/**
 * @param prefix path of the URL, without leading slash; a trailing one is tolerated
 * @param server name of the server: one component of the key
 */
export function serverLayout(prefix: string, server: string): ServerLayout {
  // A leading slash would make Barman's path join drop the prefix; nobody can want that.
  const name = server.replace(/^\/+/, "");
  const root = prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`;
  const base = `${root}${name}/base/`;
  const wals = `${root}${name}/wals/`;
  const backup = (id: string) => `${base}${id}/`;
  const annotation = (start: string) => (id: string, kind: string) =>
    `${start}${name}/base/${id}/annotations/${kind}`;
  const asBarman = annotation(prefix === "" ? "" : `${prefix}/`);
  const spellings = [asBarman, annotation(root), annotation(root === "" ? "" : `${root}/`)];
  return {
    server: name,
    base,
    wals,
    identity: `${root}${name}/wal-identity.json`,
    walClaims: `${root}${name}/wal-claims/`,
    walClaim: (file) => `${root}${name}/wal-claims/${file}`,
    backup,
    backupInfo: (id) => `${backup(id)}backup.info`,
    backupLabel: (id) => `${backup(id)}backup_label`,
    manifest: (id) => `${backup(id)}backup_manifest`,
    record: (id) => `${backup(id)}verification.json`,
    runningMark: (id) => `${backup(id)}running.json`,
    deletionMark: (id, deletion) => `${backup(id)}deletion-${deletion}.json`,
    archive: (id, archive, index, extension) =>
      `${backup(id)}${archive}${
        index === 0 ? "" : `_${String(index).padStart(4, "0")}`
      }.${extension}`,
    annotation: asBarman,
    annotationSpellings: (id, kind) => [...new Set(spellings.map((spell) => spell(id, kind)))],
    wal: (file) =>
      file.endsWith(".history")
        ? `${wals}${file}`
        : `${wals}${file.slice(0, 16).toUpperCase()}/${file}`,
  };
}
