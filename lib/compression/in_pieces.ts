/** Working on pieces, several at a time in worker threads, with the results in order. */
import { Worker } from "node:worker_threads";
import { abortable, breathe } from "./byte_reader.ts";
import { createPieceCodec, type Piece, type PieceResult } from "./pieces.ts";
import type { PieceAnswer, PieceRequest } from "./piece_worker.ts";
import { FRUGAL, workerFile } from "./worker_files.ts";

/** Pieces that a worker has: it takes the next while this thread is still about something else. */
const AT_A_WORKER = 2;

export interface PieceOptions {
  /** Worker threads at most; 0 does all in this thread. */
  readonly workers: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * Work on pieces in order; what comes is overwritten once the next is asked for. With workers, the second piece
 * starts them: one alone is worked on here.
 * @param pieces makes the pieces, whose `input` has to begin the memory that `take` gave for it
 */
export async function* inPieces(
  pieces: (take: (size: number) => Uint8Array) => AsyncIterable<Piece>,
  { workers, signal }: PieceOptions,
): AsyncGenerator<PieceResult, void, void> {
  if (workers === 0) return yield* inThisThread(pieces, signal);
  const pool = createPool(workers);
  const underWay: Promise<Finished>[] = [];
  const next = async (): Promise<Finished> => {
    const first = underWay.shift();
    if (first === undefined) throw new RangeError("The queue of pieces is empty");
    return await abortable(first, signal);
  };
  const send = (piece: Piece) => {
    const finished = pool.send(piece);
    // Its failure is seen when its turn comes.
    finished.catch(() => undefined);
    underWay.push(finished);
  };
  let first: Piece | undefined;
  let count = 0;
  try {
    for await (const piece of pieces(pool.take)) {
      if (count++ === 0) {
        first = piece;
        continue;
      }
      if (first !== undefined) send(first);
      first = undefined;
      send(piece);
      // One more than the workers take, so that none waits for the source.
      while (underWay.length > AT_A_WORKER * workers) {
        const { result, slot } = await next();
        yield result;
        pool.give(slot);
      }
    }
    if (first !== undefined) yield createPieceCodec()(first);
    while (underWay.length > 0) {
      const { result, slot } = await next();
      yield result;
      pool.give(slot);
    }
  } finally {
    await pool.close();
  }
}

async function* inThisThread(
  pieces: (take: (size: number) => Uint8Array) => AsyncIterable<Piece>,
  signal: AbortSignal | undefined,
): AsyncGenerator<PieceResult, void, void> {
  const workOn = createPieceCodec();
  let memory: Uint8Array | undefined;
  for await (const piece of pieces((size) => memory ??= new Uint8Array(size))) {
    yield workOn(piece);
    // Blocks of bzip2 take a good part of a second.
    if (piece.codec === "bzip2") await breathe(signal);
  }
}

/**
 * Memory of a piece on its way, shared with the workers: what is sent to and fro becomes garbage on both sides, and
 * heaps grow far before it is collected.
 */
interface Slot {
  readonly input: SharedArrayBuffer;
  readonly output: SharedArrayBuffer;
}

interface Finished {
  readonly result: PieceResult;
  readonly slot: Slot;
}

interface Job {
  readonly piece: Piece;
  readonly slot: Slot;
  readonly resolve: (finished: Finished) => void;
  readonly reject: (error: Error) => void;
}

interface PoolWorker {
  readonly thread: Worker;
  /** Sent to it and not answered, in order. */
  readonly jobs: Job[];
}

interface Pool {
  take(size: number): Uint8Array;
  send(piece: Piece): Promise<Finished>;
  /** The slot can be used again. */
  give(slot: Slot): void;
  close(): Promise<void>;
}

/** Threads that start when there is work for them. */
function createPool(limit: number): Pool {
  const slots = new Map<ArrayBufferLike, Slot>();
  const free: Slot[] = [];
  const crew: PoolWorker[] = [];
  const waiting: Job[] = [];
  let failure: Error | undefined;

  const fail = (cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    failure ??= new Error(`A worker thread ended: ${reason}`, { cause });
    for (const { jobs } of crew) for (const job of jobs.splice(0)) job.reject(failure);
    for (const job of waiting.splice(0)) job.reject(failure);
  };
  const start = (): PoolWorker => {
    const started: PoolWorker = {
      thread: new Worker(workerFile("piece_worker"), FRUGAL),
      jobs: [],
    };
    crew.push(started);
    started.thread.on("message", ({ length, bits, problem, unfitting }: PieceAnswer) => {
      const job = started.jobs.shift();
      work();
      if (job === undefined) return;
      const bytes = new Uint8Array(unfitting ?? job.slot.output, 0, length);
      job.resolve({ result: { bytes, bits, problem }, slot: job.slot });
    });
    started.thread.on("error", fail);
    return started;
  };
  /** The next job to whoever has the least to do. */
  const work = () => {
    if (waiting.length === 0) return;
    const [leastBusy] = crew.toSorted((a, b) => a.jobs.length - b.jobs.length);
    const idle = leastBusy?.jobs.length === 0;
    const worker = idle || crew.length === limit ? leastBusy : start();
    if (worker === undefined || worker.jobs.length === AT_A_WORKER) return;
    const job = waiting.shift();
    if (job === undefined) return;
    worker.jobs.push(job);
    const { input, ...piece } = job.piece;
    const request: PieceRequest = { piece, length: input.length, ...job.slot };
    worker.thread.postMessage(request);
  };

  return {
    take(size) {
      const slot = free.pop() ?? {
        input: new SharedArrayBuffer(size),
        output: new SharedArrayBuffer(size + size / 16 + 4096 | 0),
      };
      slots.set(slot.input, slot);
      return new Uint8Array(slot.input);
    },
    send: (piece) =>
      new Promise((resolve, reject) => {
        const slot = slots.get(piece.input.buffer);
        if (slot === undefined) throw new RangeError("A piece must be in memory of the pool");
        if (failure !== undefined) throw failure;
        waiting.push({ piece, slot, resolve, reject });
        work();
      }),
    give: (slot) => free.push(slot),
    async close() {
      await Promise.all(crew.map(({ thread }) => thread.terminate()));
    },
  };
}
