import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ca } from '../../../test/support/servers/certificate.js';
import { JwksServer } from '../../../test/support/servers/issuer.js';
import { FetchError, fetchText, jwksBytesMax } from './fetch-jwks.js';

const { signal } = new AbortController();
/** Longer than any fetch takes. A fetch that ignores its time limit is aborted then, with another outcome. */
const patientMs = 30_000;

function fetchFrom(
  { url }: JwksServer,
  options: { timeoutMs?: number; signal?: AbortSignal } = {},
) {
  return fetchText(url, { ca, timeoutMs: patientMs, signal, ...options });
}

function assertFails(fetching: Promise<string>, outcome: string, detail: RegExp) {
  return assert.rejects(fetching, (cause) => {
    assert.ok(cause instanceof FetchError, String(cause));
    assert.equal(cause.outcome, outcome);
    assert.match(cause.message, detail);
    return true;
  });
}

/** Starts a server that sends the head of a response and then only what the test writes. */
async function startHanging(t: TestContext) {
  const server = await JwksServer.start(t);
  server.respondWith((response) => {
    response.writeHead(200).write('{"keys":');
  });
  return server;
}

test('the text of a response is returned, without a byte order mark', async (t) => {
  const server = await JwksServer.start(t);
  server.respondWithText('\ufeff{"keys":["é"]}');

  assert.equal(await fetchFrom(server), '{"keys":["é"]}');
});

for (const bytes of [jwksBytesMax - 1, jwksBytesMax]) {
  test(`a response of ${bytes} bytes is accepted`, async (t) => {
    const server = await JwksServer.start(t);
    server.respondWithText('x'.repeat(bytes));

    assert.equal((await fetchFrom(server)).length, bytes);
  });
}

test('a response of more than 256 KiB is refused before its end', async (t) => {
  const server = await JwksServer.start(t);
  const closed = new Promise((resolve) => {
    server.respondWith((response) => {
      response.on('close', resolve).write('x'.repeat(jwksBytesMax + 1)); // The response never ends.
    });
  });

  await assertFails(fetchFrom(server), 'too_large', /^more than 262144 bytes$/);
  await closed;
});

for (const status of [301, 302, 303, 307, 308]) {
  test(`a redirect with status ${status} is not followed`, async (t) => {
    const target = await JwksServer.start(t);
    target.respondWithText('{"keys":[]}');
    const server = await JwksServer.start(t);
    server.respondWith((response) => response.writeHead(status, { location: target.url }).end());

    await assertFails(fetchFrom(server), 'status', new RegExp(`^status ${status}$`));
    assert.equal(target.requests, 0);
  });
}

for (const status of [201, 204, 206, 304, 404, 429, 500, 503]) {
  test(`a response with status ${status} is refused`, async (t) => {
    const server = await JwksServer.start(t);
    server.respondWith((response) => response.writeHead(status).end());

    await assertFails(fetchFrom(server), 'status', new RegExp(`^status ${status}$`));
  });
}

test('a response that is not UTF-8 is refused', async (t) => {
  const server = await JwksServer.start(t);
  server.respondWith((response) => response.end(Buffer.from([0x7b, 0xff, 0x7d])));

  await assertFails(fetchFrom(server), 'invalid', /^not UTF-8$/);
});

test('a fetch from a server that does not respond fails after the time limit', async (t) => {
  const server = await JwksServer.start(t);
  server.respondWith(() => {});

  const fetching = fetchFrom(server, { timeoutMs: 50, signal: AbortSignal.timeout(patientMs) });

  await assertFails(fetching, 'timeout', /^no response within 50 ms$/);
});

test('the time limit of a fetch includes the body of the response', async (t) => {
  const server = await startHanging(t);

  const fetching = fetchFrom(server, { timeoutMs: 500, signal: AbortSignal.timeout(patientMs) });

  await assertFails(fetching, 'timeout', /^no response within 500 ms$/);
});

test('a response that is cut off is refused', async (t) => {
  const server = await JwksServer.start(t);
  server.respondWith((response) => {
    response.writeHead(200, { 'content-length': '100' }).write('{"keys":');
    response.socket?.destroy();
  });

  await assertFails(fetchFrom(server), 'unreachable', /^E/);
});

test('a fetch from a server that is down fails with the error code', async (t) => {
  const server = await JwksServer.start(t);
  await server.stop();

  await assertFails(fetchFrom(server), 'unreachable', /^ECONNREFUSED$/);
});

test('a server whose certificate is not trusted gets no request', async (t) => {
  const server = await JwksServer.start(t);
  server.respondWithText('{"keys":[]}');

  const fetching = fetchText(server.url, { ca: undefined, timeoutMs: patientMs, signal });

  await assertFails(fetching, 'unreachable', /SELF_SIGNED/);
  assert.equal(server.requests, 0);
});

test('a certificate is checked even with NODE_TLS_REJECT_UNAUTHORIZED=0', async (t) => {
  const server = await JwksServer.start(t);
  const name = 'NODE_TLS_REJECT_UNAUTHORIZED';
  process.env[name] = '0';
  t.after(() => delete process.env[name]);

  const fetching = fetchText(server.url, { ca: undefined, timeoutMs: patientMs, signal });

  await assertFails(fetching, 'unreachable', /SELF_SIGNED/);
});

test('a certificate for another host is not trusted', async (t) => {
  const server = await JwksServer.start(t);
  const url = server.url.replace('localhost', '127.0.0.2');

  const fetching = fetchText(url, { ca, timeoutMs: patientMs, signal });

  await assertFails(fetching, 'unreachable', /^ERR_TLS_CERT_ALTNAME_INVALID$/);
});

test('an abort ends a running fetch and its connection', async (t) => {
  const controller = new AbortController();
  const server = await JwksServer.start(t);
  const closed = new Promise((resolve) => {
    server.respondWith((response) => {
      response.on('close', resolve);
      controller.abort();
    });
  });

  await assertFails(fetchFrom(server, { signal: controller.signal }), 'unreachable', /^ABORT_ERR$/);
  await closed;
});

test('no fetch starts after an abort', async (t) => {
  const server = await JwksServer.start(t);

  await assertFails(
    fetchFrom(server, { signal: AbortSignal.abort() }),
    'unreachable',
    /^ABORT_ERR$/,
  );
  assert.equal(server.requests, 0);
});

test('a fetch sends a User-Agent and closes its connection', async (t) => {
  const server = await JwksServer.start(t);
  const seen = new Promise<Record<string, unknown>>((resolve) => {
    server.respondWith((response) => {
      resolve(response.req.headers);
      response.end('{}');
    });
  });

  await fetchFrom(server);

  const { 'user-agent': agent, accept, connection } = await seen;
  assert.match(String(agent), /^herald\/\d/);
  assert.deepEqual({ accept, connection }, { accept: 'application/json', connection: 'close' });
});
