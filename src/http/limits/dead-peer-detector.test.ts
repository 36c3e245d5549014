import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Http2Session } from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { DeadPeerDetector } from './dead-peer-detector.js';

const intervalMs = 1000;

/** Opens an HTTP/2 connection. Returns the server's end as a peer with an open exchange. */
async function openPeer(t: TestContext) {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const connected = once(server, 'connection');
  const opened = once(server, 'session');
  const client = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  t.after(() => {
    client.destroy();
    server.close();
  });
  const [[socket], [h2Session]] = (await Promise.all([connected, opened])) as [
    [Socket],
    [Http2Session],
  ];
  return {
    socket,
    h2Session,
    exchangeCount: 1,
    bytesReadAtPing: undefined,
    ackedBytesMax: undefined,
  };
}

test('an HTTP/2 peer that sent nothing between two checks is disconnected', async (t) => {
  const time = { now: 0 };
  const peer = await openPeer(t);
  const detector = new DeadPeerDetector(intervalMs, () => time.now);

  time.now += intervalMs;
  detector.check([peer]);
  assert.equal(peer.socket.destroyed, false);
  time.now += 1.25 * intervalMs;
  detector.check([peer]); // No event-loop turn in between, so nothing was received.

  assert.equal(peer.socket.destroyed, true);
});

test('a check that runs late, for example after a pause of the process, disconnects no peer', async (t) => {
  const time = { now: 0 };
  const peer = await openPeer(t);
  const detector = new DeadPeerDetector(intervalMs, () => time.now);

  time.now += intervalMs;
  detector.check([peer]);
  time.now += 1.25 * intervalMs + 1;
  detector.check([peer]);
  assert.equal(peer.socket.destroyed, false);
  time.now += intervalMs;
  detector.check([peer]);

  assert.equal(peer.socket.destroyed, true);
});

test('an idle HTTP/2 peer is not pinged, and does not count as dead when an exchange begins', async (t) => {
  const time = { now: 0 };
  const peer = await openPeer(t);
  const detector = new DeadPeerDetector(intervalMs, () => time.now);

  for (const exchangeCount of [1, 0, 1]) {
    time.now += intervalMs;
    detector.check([Object.assign(peer, { exchangeCount })]);
  }

  assert.equal(peer.socket.destroyed, false);
});
