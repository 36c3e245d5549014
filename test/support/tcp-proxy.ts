import { connect, createServer, Socket } from 'node:net';

/** A way to a server that a test can spoil. */
export interface TcpProxy {
  readonly port: number;
  /** From here on connections that are open carry nothing, as with a server that hangs. */
  freeze(): void;
  /** Ends all open connections; new ones are taken. */
  cut(): void;
  /** Nothing comes through any more, on new connections neither, and nobody is told. */
  silence(): void;
  /** Ends all open connections, and new ones at once. */
  block(): void;
  /** Ends what is left of `silence` and `block`. */
  unblock(): void;
  /** A connection taken from here on ends when its client sends something for the `nth` time. */
  cutAt(nth: number): void;
  /**
   * Closes the next connection in an orderly way when its client sends something for the `nth` time;
   * the answer to that is not passed on. Settles once it is closed.
   */
  endNextAt(nth: number): Promise<void>;
  close(): Promise<void>;
}

export async function openTcpProxy(target: { host: string; port: number }): Promise<TcpProxy> {
  const pairs = new Set<readonly [Socket, Socket]>();
  let isBlocked = false;
  let isSilent = false;
  let lastMessage = Number.POSITIVE_INFINITY;
  let nextEnd: { readonly nth: number; readonly ended: () => void } | undefined;
  const cut = (): void => {
    for (const socket of [...pairs].flat()) socket.destroy();
  };
  const freeze = (): void => {
    for (const socket of [...pairs].flat()) socket.unpipe().pause();
  };
  const server = createServer((near) => {
    if (isBlocked) {
      near.destroy();
      return;
    }
    const far = isSilent ? new Socket() : connect(target);
    const pair = [near, far] as const;
    pairs.add(pair);
    if (!isSilent) near.pipe(far).pipe(near);
    const end = nextEnd;
    nextEnd = undefined;
    let messages = 0;
    near.on('data', () => {
      messages += 1;
      if (end !== undefined && messages === end.nth) {
        far.unpipe(near);
        near.end(end.ended);
      }
      if (messages >= lastMessage) near.resetAndDestroy(); // As a server that fails, not one that closes.
    });
    for (const [one, other] of [pair, [far, near] as const]) {
      one.on('error', () => other.destroy()); // The test looks at the other end.
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
    cutAt(nth) {
      lastMessage = nth;
    },
    endNextAt(nth) {
      return new Promise((resolve) => {
        nextEnd = { nth, ended: () => resolve() };
      });
    },
    close() {
      cut();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
