/**
 * A TCP proxy that misbehaves as told, connection by connection: what tests use for a bad network.
 */
import net from "node:net";

/** What happens to one connection. An empty plan passes everything on. */
export interface ConnectionPlan {
  /** Close it at once, without a word. */
  readonly drop?: boolean | undefined;
  /** Accept it and never pass anything on, either way. */
  readonly blackhole?: boolean | undefined;
  /** Cut it after this many bytes from client to server. */
  readonly cutAfterUp?: number | undefined;
  /** Cut it after this many bytes from server to client. */
  readonly cutAfterDown?: number | undefined;
  /** Stay connected but pass nothing on after this many bytes from client to server. */
  readonly stallAfterUp?: number | undefined;
  /** Stay connected but pass nothing on after this many bytes from server to client. */
  readonly stallAfterDown?: number | undefined;
  /** Cuts (and `drop`) are a reset (RST) instead of an orderly end (FIN). */
  readonly reset?: boolean | undefined;
  /** Hold back each piece of data, both ways, by so many milliseconds. */
  readonly delayMs?: number | undefined;
}

export interface FaultProxy {
  readonly port: number;
  /** `http://127.0.0.1:PORT` */
  readonly endpoint: string;
  /** Connections accepted so far. */
  readonly connections: number;
  /** From now on: a plan for every connection, or a function of its number (from 1, ever rising). */
  plan(plan: ConnectionPlan | ((connection: number) => ConnectionPlan)): void;
  /** Reset every connection that is open now. */
  cut(): void;
  /** Stop listening, so that connections are refused; those that are open stay. */
  refuse(): Promise<void>;
  /** Close everything. */
  stop(): Promise<void>;
}

/** @param target `http://HOST:PORT` (path and scheme do not matter) */
export async function startFaultProxy(
  target: string,
  first: ConnectionPlan | ((connection: number) => ConnectionPlan) = {},
): Promise<FaultProxy> {
  const { hostname, port, protocol } = new URL(target);
  const upstream = { host: hostname, port: Number(port || (protocol === "https:" ? 443 : 80)) };
  const open = new Set<net.Socket>();
  let current = first;
  let connections = 0;

  const server = net.createServer((client) => {
    connections++;
    const plan = typeof current === "function" ? current(connections) : current;
    track(open, client);
    if (plan.drop === true) return end(client, plan);
    if (plan.blackhole === true) return;
    const onward = net.connect(upstream);
    track(open, onward);
    const both = [client, onward];
    pump(client, onward, plan, { cut: plan.cutAfterUp, stall: plan.stallAfterUp }, both);
    pump(onward, client, plan, { cut: plan.cutAfterDown, stall: plan.stallAfterDown }, both);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The proxy has no port");
  const closed = new Promise<void>((resolve) => server.once("close", () => resolve()));

  return {
    port: address.port,
    endpoint: `http://127.0.0.1:${address.port}`,
    get connections() {
      return connections;
    },
    plan(plan) {
      current = plan;
    },
    cut() {
      for (const socket of open) socket.resetAndDestroy();
    },
    async refuse() {
      if (server.listening) server.close();
      // `close` waits for open connections; that nobody listens any more is immediate.
      await new Promise((resolve) => setTimeout(resolve, 10));
    },
    async stop() {
      if (server.listening) server.close();
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}

interface Limits {
  readonly cut: number | undefined;
  readonly stall: number | undefined;
}

function pump(
  from: net.Socket,
  to: net.Socket,
  plan: ConnectionPlan,
  limits: Limits,
  both: readonly net.Socket[],
): void {
  let passed = 0;
  let stalled = false;
  const pass = (chunk: Uint8Array) => {
    const limit = Math.min(limits.cut ?? Infinity, limits.stall ?? Infinity);
    const part = chunk.subarray(0, Math.max(0, Math.min(chunk.length, limit - passed)));
    passed += part.length;
    if (part.length > 0 && !to.destroyed && !to.write(part)) {
      from.pause();
      to.once("drain", () => from.resume());
    }
    if (passed < limit) return;
    if (limits.cut !== undefined && passed >= limits.cut) {
      // What was passed on should arrive first, a reset would throw it away.
      setTimeout(() => both.forEach((socket) => end(socket, plan)), 20);
    }
    stalled = true;
    from.pause();
  };
  from.on("data", (chunk: Uint8Array) => {
    if (stalled) return;
    if (plan.delayMs === undefined) pass(chunk);
    else setTimeout(() => stalled || pass(chunk), plan.delayMs);
  });
  from.on("end", () => setTimeout(() => stalled || to.end(), plan.delayMs ?? 0));
  from.on("close", () => stalled || setTimeout(() => to.destroy(), (plan.delayMs ?? 0) + 20));
}

function end(socket: net.Socket, plan: ConnectionPlan): void {
  if (socket.destroyed) return;
  if (plan.reset === true) socket.resetAndDestroy();
  else socket.destroy();
}

function track(open: Set<net.Socket>, socket: net.Socket): void {
  open.add(socket);
  socket.on("close", () => open.delete(socket));
  // Whatever happens to one side shows at the other as its end.
  socket.on("error", () => {});
}
