/** What can go wrong with a server. */

/** No connection, or none as asked for. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
}

/** The session ended before we closed it. It is never made anew: a new one cannot end a backup. */
export class SessionLostError extends Error {
  override readonly name = "SessionLostError";
}

/** The server refused a query. */
export class QueryError extends Error {
  override readonly name = "QueryError";
  /** Five characters: PostgreSQL's error code. */
  readonly sqlState: string;

  constructor(message: string, sqlState: string, options?: ErrorOptions) {
    super(message, options);
    this.sqlState = sqlState;
  }
}

/** A query took longer than it may. */
export class QueryTimeoutError extends Error {
  override readonly name = "QueryTimeoutError";
}
