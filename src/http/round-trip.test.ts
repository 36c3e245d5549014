import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  connect,
  constants,
  createServer,
  type Http2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { withDeadline } from '../../test/support/with-deadline.js';
import { pingPeer } from './round-trip.js';

/** Opens a stream between Node's HTTP/2 client and server; returns both ends. */
async function openStream(t: TestContext) {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client: ClientHttp2Session = connect(`http://127.0.0.1:${port}`);
  const request = client.request({ ':path': '/' });
  request.on('error', () => {});
  const [[stream], [session]] = (await Promise.all([
    once(server, 'stream'),
    once(server, 'session'),
  ])) as [[ServerHttp2Stream], [Http2Session]];
  stream.on('error', () => {});
  stream.respond();
  await once(request, 'response');
  t.after(() => {
    client.destroy();
    server.close();
  });
  return { client, request, stream, session };
}

test('when pingPeer() settles, a stream that the peer had already reset is closed', async (t) => {
  const { request, stream, session } = await openStream(t);
  let pings = 0;
  request.session?.on('ping', () => {
    pings += 1;
  });

  request.close(constants.NGHTTP2_CANCEL);
  // Reads the state in the first callback, because the stream could still close before a later one.
  const isClosed = pingPeer(session).then(() => stream.destroyed);

  assert.equal(await withDeadline(isClosed, 'the answer to a PING'), true);
  assert.equal(pings, 1);
});

test('calls of pingPeer() that arrive during a PING share the next PING', async (t) => {
  const { client, session } = await openStream(t);
  let pings = 0;
  client.on('ping', () => {
    pings += 1;
  });

  const calls = Array.from({ length: 50 }, () => pingPeer(session));
  await withDeadline(Promise.all(calls), 'the answers to PINGs');

  assert.equal(pings, 2); // One for the first call, and one for all calls that arrived during it.
});

test('pingPeer() settles when the connection closes', async (t) => {
  const { client, session } = await openStream(t);

  const pinging = pingPeer(session);
  client.destroy();
  await withDeadline(pinging, 'the end of a PING on a closed connection');
  await withDeadline(pingPeer(session), 'the end of a PING on a closed connection');

  assert.equal(session.destroyed, true);
});
