import { connect, createServer, Socket } from 'node:net';
import { withDeadline } from './with-deadline.js';

/** A TCP proxy whose connections a test can break. */
export interface TcpProxy {
  readonly port: number;
  /** Stops forwarding on the open connections, as if the server hung. New connections still work. */
  freeze(): void;
  /** Forwards no response to a client that has sent this text, without closing its connection. */
  silenceAfter(text: string): void;
  /** Closes all open connections; new connections are still accepted. */
  cut(): void;
  /** Stops forwarding on open and new connections, without closing any. */
  silence(): void;
  /** Closes all open connections, and each new connection as soon as it is accepted. */
  block(): void;
  /** Ends `silence` and `block`, and closes all open connections. */
  unblock(): void;
  /** Resets each connection when its client sends its `nth` or a later chunk of data. */
  cutAt(nth: number): void;
  /**
   * Closes the next connection gracefully when its client sends its `nth` chunk of data; the response
   * to that chunk is not forwarded. Settles once it is closed.
   */
  endNextAt(nth: number): Promise<void>;
  close(): Promise<void>;
}

export async function openTcpProxy(target: { host: string; port: number }): Promise<TcpProxy> {
  const pairs = new Set<readonly [Socket, Socket]>();
  let isBlocked = false;
  let isSilent = false;
  let silencingText: string | undefined;
  let chunksMax = Number.POSITIVE_INFINITY;
  let nextEnd: { readonly nth: number; readonly ended: () => void } | undefined;
  const cut = (): void => {
    for (const socket of [...pairs].flat()) socket.destroy();
  };
  const freeze = (): void => {
    for (const socket of [...pairs].flat()) socket.unpipe().pause();
  };
  const server = createServer((client) => {
    if (isBlocked) {
      client.destroy();
      return;
    }
    const upstream = isSilent ? new Socket() : connect(target);
    const pair = [client, upstream] as const;
    pairs.add(pair);
    if (!isSilent) client.pipe(upstream).pipe(client);
    const end = nextEnd;
    nextEnd = undefined;
    let chunks = 0;
    client.on('data', (chunk: Buffer) => {
      chunks += 1;
      if (silencingText !== undefined && chunk.includes(silencingText)) upstream.unpipe(client);
      if (end !== undefined && chunks === end.nth) {
        upstream.unpipe(client);
        client.end(end.ended);
      }
      if (chunks >= chunksMax) client.resetAndDestroy(); // As a crashing server does.
    });
    for (const [one, other] of [pair, [upstream, client] as const]) {
      one.on('error', () => other.destroy()); // The test observes the other end.
      one.on('close', () => {
        other.destroy();
        pairs.delete(pair);
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('Cannot open proxy');
  return {
    port: address.port,
    freeze,
    cut,
    silence() {
      isSilent = true;
      freeze();
    },
    block() {
      isBlocked = true;
      cut();
    },
    unblock() {
      isBlocked = false;
      isSilent = false;
      cut();
    },
    silenceAfter(text) {
      silencingText = text;
    },
    cutAt(nth) {
      chunksMax = nth;
    },
    endNextAt(nth) {
      const ended = new Promise<void>((resolve) => {
        nextEnd = { nth, ended: () => resolve() };
      });
      return withDeadline(ended, `chunk ${nth} of a client`);
    },
    close() {
      cut();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
