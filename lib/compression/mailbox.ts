/** Values that one side puts and another takes, in order. */
export class Mailbox<T> {
  readonly #values: T[] = [];
  readonly #waiting: { resolve(value: T): void; reject(error: unknown): void }[] = [];
  #failure: { readonly error: unknown } | undefined;

  put(value: T): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#values.push(value);
    else next.resolve(value);
  }

  /** The next value, when there is one. @throws what `fail` was told, once the values before are taken */
  take(): Promise<T> {
    if (this.#values.length > 0) return Promise.resolve(this.#values.shift() as T);
    if (this.#failure !== undefined) return Promise.reject(this.#failure.error);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Nothing more will come. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}
