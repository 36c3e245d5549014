import { connect, createServer, type Socket } from 'node:net';
import type { TestContext } from 'node:test';

/** A TCP proxy that can hold back what clients send. What the server sends is always forwarded. */
export interface HoldingProxy {
  readonly port: number;
  /** Number of chunks that the proxy holds back. */
  readonly heldChunks: number;
  /** Holds back the client's chunks from now on. */
  hold(): void;
  /** Forwards the next `count` held chunks. */
  forward(count: number): void;
  /** Forwards all held chunks, and later ones at once. */
  release(): void;
}

/** Opens a proxy for one connection to a port of this machine; closed after the test. */
export async function openHoldingProxy(t: TestContext, targetPort: number): Promise<HoldingProxy> {
  const queue: Buffer[] = [];
  const sockets: Socket[] = [];
  let isHolding = false;
  let upstream: Socket | undefined;
  const server = createServer((client) => {
    const target = connect(targetPort, '127.0.0.1');
    upstream = target;
    sockets.push(client, target);
    target.pipe(client);
    client.on('data', (chunk: Buffer) => {
      if (isHolding) queue.push(chunk);
      else target.write(chunk);
    });
    for (const socket of [client, target]) socket.on('error', () => {}); // The test observes the ends.
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('Cannot open proxy');
  const forward = (count: number) => {
    for (const chunk of queue.splice(0, count)) upstream?.write(chunk);
  };
  return {
    port: address.port,
    get heldChunks() {
      return queue.length;
    },
    hold() {
      isHolding = true;
    },
    forward,
    release() {
      isHolding = false;
      forward(queue.length);
    },
  };
}
