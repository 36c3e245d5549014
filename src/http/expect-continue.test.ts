import assert from 'node:assert/strict';
import { connect } from 'node:http2';
import { type TestContext, test } from 'node:test';
import { type Protocol, protocols } from '../../test/support/clients/exchange.js';
import { RawTls } from '../../test/support/clients/raw-tls.js';
import { testCertificate } from '../../test/support/servers/certificate.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { until } from '../../test/support/until.js';
import { Failure } from '../errors.js';
import { json } from './reply.js';
import { route } from './router.js';

const routes = [
  route('POST', '/read', async (exchange) => json(200, await exchange.body())),
  route('POST', '/lines', async (exchange) => {
    const values: unknown[] = [];
    const lines = exchange.lines({ bytesMax: 100, lineBytesMax: 100, deadlineMs: 60_000 });
    for await (const { value } of lines) values.push(value);
    return json(200, values);
  }),
  route('POST', '/private', () => {
    throw new Failure('bad_credentials', 'Missing Authorization header');
  }),
];

const jsonType = { 'content-type': 'application/json' };
const linesType = { 'content-type': 'application/x-ndjson' };
type Fields = Readonly<Record<string, string>>;

/** Sends a head that expects 100-continue, sends the body after 100, and returns all statuses in order. */
type SendExpecting = (path: string, fields: Fields) => Promise<number[]>;

const body = '[1]';

function overH2(t: TestContext, port: number): SendExpecting {
  const session = connect(`https://127.0.0.1:${port}`, { ca: testCertificate.cert });
  t.after(() => session.destroy());
  return async (path, fields) => {
    const head = { ':method': 'POST', ':path': path, ...fields, expect: '100-continue' };
    const stream = session.request(head, { endStream: false });
    const statuses: number[] = [];
    stream.on('continue', () => {
      statuses.push(100);
      stream.end(body);
    });
    stream.on('response', ({ ':status': status = 0 }) => statuses.push(status));
    stream.on('error', () => {}).resume(); // The server resets a stream whose body it does not read.
    await until(() => isAnswered(statuses));
    return statuses;
  };
}

function overHttp1(_t: TestContext, port: number): SendExpecting {
  return async (path, fields) => {
    const client = await RawTls.open(port, 'http/1.1');
    client.write(formatHead('HTTP/1.1', path, fields));
    await until(() => getStatuses(client).length > 0);
    if (getStatuses(client).at(-1) === 100) client.write(body);
    await until(() => isAnswered(getStatuses(client)));
    client.destroy();
    return getStatuses(client);
  };
}

/** Whether the final status has been received. */
const isAnswered = (statuses: readonly number[]) => statuses.some((status) => status >= 200);

function formatHead(version: string, path: string, fields: Fields): string {
  const all = { host: 'a', expect: '100-continue', ...fields };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `POST ${path} ${version}\r\n${lines.join('')}\r\n`;
}

/** Returns the statuses received so far, including 100. */
function getStatuses(client: RawTls): number[] {
  const lines = client.received.toString('latin1').matchAll(/HTTP\/1\.1 (\d{3}) /g);
  return [...lines].map(([, status]) => Number(status));
}

// [case, path, headers, statuses]
const cases: readonly (readonly [string, string, Fields, readonly number[]])[] = [
  ['a body that is read', '/read', { ...jsonType, 'content-length': '3' }, [100, 200]],
  ['lines that are read', '/lines', { ...linesType, 'content-length': '3' }, [100, 200]],
  ['a request without credentials', '/private', { ...jsonType, 'content-length': '3' }, [401]],
  ['an unknown path', '/nowhere', { ...jsonType, 'content-length': '3' }, [404]],
  ['a body over the limit', '/read', { ...jsonType, 'content-length': '9000' }, [413]],
  ['lines over the limit', '/lines', { ...linesType, 'content-length': '9000' }, [413]],
  ['lines of another type', '/lines', { ...jsonType, 'content-length': '3' }, [415]],
  [
    'a compressed body',
    '/read',
    { ...jsonType, 'content-length': '3', 'content-encoding': 'gzip' },
    [415],
  ],
];

const senders: Readonly<Record<Protocol, typeof overH2>> = { h2: overH2, 'http/1.1': overHttp1 };

for (const protocol of protocols) {
  for (const [what, path, fields, statuses] of cases) {
    const [first] = statuses;
    test(`a client that expects 100-continue gets ${first} first for ${what} over ${protocol}`, async (t) => {
      const { port } = await startHttp(t, routes);

      assert.deepEqual(await senders[protocol](t, port)(path, fields), statuses);
    });
  }

  test(`a client that expects 100-continue gets 405 first for a wrong method over ${protocol}`, async (t) => {
    const { port } = await startHttp(t, [route('GET', '/read', () => json(200, {}))]);
    const fields = { ...jsonType, 'content-length': '3' };

    assert.deepEqual(await senders[protocol](t, port)('/read', fields), [405]);
  });
}

test('a connection ends after an error response to a client that has not sent its body', async (t) => {
  const { port } = await startHttp(t, routes);
  const client = await RawTls.open(port, 'http/1.1');
  client.write(formatHead('HTTP/1.1', '/private', { 'content-length': '3' }));

  await until(() => client.socket.readableEnded);

  assert.match(client.received.toString(), /^HTTP\/1\.1 401 [\s\S]*\r\nconnection: close\r\n/i);
});

test('an HTTP/1.0 client never gets 100', async (t) => {
  const { port } = await startHttp(t, routes);
  const client = await RawTls.open(port, 'http/1.1');
  client.write(formatHead('HTTP/1.0', '/read', { ...jsonType, 'content-length': '3' }) + body);

  await until(() => client.socket.readableEnded);

  assert.deepEqual(getStatuses(client), [200]);
});
