import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { Server } from 'node:net';
import { type TestContext, test } from 'node:test';
import { silentLogger } from '../../logging/logger.js';
import { ConnectionLimiter } from './connection-limiter.js';
import { Connections } from './connections.js';

/** A fake TCP socket. Even after `destroy`, it emits `close` only when the test calls `emit`. */
class FakeSocket extends EventEmitter {
  readonly remoteAddress = '192.0.2.1';
  readonly localAddress = '192.0.2.2';
  readonly remotePort: number;
  readonly bytesRead = 0;
  readonly bytesWritten = 0;
  destroyed = false;

  constructor(remotePort: number) {
    super();
    this.remotePort = remotePort;
  }

  destroy(): void {
    this.destroyed = true;
  }

  resetAndDestroy(): void {
    this.destroy();
  }
}

/** Creates the `Connections` of a server on which the test opens sockets with `connect`. */
function createConnections(t: TestContext, { count = 1000 } = {}) {
  const server = new EventEmitter();
  const perMs = 3_600_000;
  const connectionLimiter = new ConnectionLimiter({
    rate: { count, perMs },
    perIp: undefined,
    log: silentLogger,
  });
  const nodeServer = { tcp: server as Server, http1: server, http2: server, onProtocol() {} };
  const connections = new Connections(nodeServer, {
    ...{ exchangesMax: 1, endMs: 1000, idleMs: 3_600_000, pingMs: 3_600_000 },
    ...{ connectionLimiter, onUnreadable() {} },
  });
  t.after(() => connections.close());
  const connect = (remotePort: number): FakeSocket => {
    const socket = new FakeSocket(remotePort);
    server.emit('connection', socket);
    return socket;
  };
  return { connections, connect };
}

test('a late close event does not remove a newer connection with the same address and port', async (t) => {
  const { connections, connect } = createConnections(t);
  const first = connect(50_000);
  connections.destroyAll();
  const second = connect(50_000);

  first.emit('close');

  assert.equal(connections.size, 1);
  let areClosed = false;
  const closing = connections.allClosed().then(() => {
    areClosed = true;
  });
  await Promise.resolve();
  assert.equal(areClosed, false);
  connections.destroyAll();
  assert.deepEqual([first.destroyed, second.destroyed], [true, true]);
  second.emit('close');
  await closing;
  assert.equal(connections.size, 0);
});

test('an error of a refused connection is handled, and the connection is not counted as open', (t) => {
  const { connections, connect } = createConnections(t, { count: 1 });
  const accepted = connect(50_000);

  const refused = connect(50_001);
  refused.emit('error', new Error('ECONNRESET')); // Would end the process without a listener.
  refused.emit('close');

  assert.deepEqual([accepted.destroyed, refused.destroyed], [false, true]);
  assert.deepEqual([connections.size, connections.refused], [1, 1]);
});
