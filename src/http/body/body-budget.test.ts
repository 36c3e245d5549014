import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ask } from '../../../test/support/clients/ask.js';
import { type Protocol, protocols } from '../../../test/support/clients/exchange.js';
import { data, fields, flag, headers, RawH2 } from '../../../test/support/clients/raw-h2.js';
import { RawTls } from '../../../test/support/clients/raw-tls.js';
import { startHttp } from '../../../test/support/servers/http-server.js';
import { until } from '../../../test/support/until.js';
import { bodiesBytesMax } from '../limits/limits.js';
import { json } from '../reply.js';
import { route } from '../router.js';
import { BodyBudget } from './body-budget.js';

const type = 'application/json';

/** Starts a server whose route has a body budget of 10 bytes; `acquired` returns the bytes in use. */
async function startWithSmallBudget(t: TestContext, { bodyMs = 60_000 } = {}) {
  const budget = new BodyBudget(10);
  const acquired = () => {
    let freeBytes = 0;
    while (budget.tryAcquire(1)) {
      freeBytes += 1;
      assert.ok(freeBytes <= 10, 'the budget is never exhausted');
    }
    budget.release(freeBytes);
    return 10 - freeBytes;
  };
  const post = route('POST', '/', async (exchange) =>
    json(200, { body: await exchange.body({ bytesMax: 100, budget }) }),
  );
  const { port } = await startHttp(t, [post], { limits: { bodyMs } });
  return { port, acquired };
}

/** Starts a body, with or without a declared length. `status` is the status of an error response. */
async function beginBody(
  protocol: Protocol,
  port: number,
  length: number | undefined,
  start: string,
) {
  if (protocol === 'h2') {
    const client = await RawH2.open(port);
    const declared = length === undefined ? [] : ([['content-length', String(length)]] as const);
    const head = fields('POST', '/', [['content-type', type], ...declared]);
    client.send(headers(1, head, flag.endHeaders), data(1, start));
    return {
      finish: (rest: string) => client.send(data(1, rest, flag.endStream)),
      status: async () => (await client.readJson(1))?.['status'],
      destroy: () => client.destroy(),
    };
  }
  const client = await RawTls.open(port, 'http/1.1');
  const size = length === undefined ? 'transfer-encoding: chunked' : `content-length: ${length}`;
  const chunk = (text: string) =>
    length === undefined ? `${text.length.toString(16)}\r\n${text}\r\n` : text;
  const head = `POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: ${type}\r\n${size}\r\n\r\n`;
  client.write(head + chunk(start));
  return {
    finish: (rest: string) => client.write(chunk(rest) + (length === undefined ? '0\r\n\r\n' : '')),
    async status() {
      await client.until((received) => received.includes('\r\n'));
      return Number(/^HTTP\/1\.1 (\d+)/.exec(String(client.received))?.[1]);
    },
    destroy: () => client.destroy(),
  };
}

for (const protocol of protocols) {
  const send = (port: number, body: string) =>
    ask(protocol, port, 'POST', '/', { headers: { 'content-type': type }, body });

  test(`bodies that fill the budget together are accepted, and one byte more is refused (${protocol})`, async (t) => {
    const { port, acquired } = await startWithSmallBudget(t);
    assert.equal((await send(port, '"12345678"')).status, 200);
    assert.equal((await send(port, '"123456789"')).status, 503);

    const incomplete = await beginBody(protocol, port, 6, '"');
    await until(() => acquired() === 6);
    const [fits, tooMuch] = [await send(port, '1234'), await send(port, '12345')];

    assert.deepEqual([fits.status, tooMuch.status], [200, 503]);
    assert.deepEqual(
      [tooMuch.body['name'], tooMuch.headers['retry-after']],
      ['service_unavailable', '1'],
    );
    incomplete.finish('1234"');
    await until(() => acquired() === 0);
    incomplete.destroy();
  });

  test(`a body without a declared length is counted as it arrives (${protocol})`, async (t) => {
    const { port, acquired } = await startWithSmallBudget(t);
    const first = await beginBody(protocol, port, undefined, '"1234');
    await until(() => acquired() === 5);
    const second = await beginBody(protocol, port, undefined, '"123');
    await until(() => acquired() === 9);

    second.finish('45"'); // Exceeds the budget, so that its 4 bytes are released.
    await until(() => acquired() === 5);

    first.finish('5"');
    await until(() => acquired() === 0);
    first.destroy();
    second.destroy();
  });

  test(`a truncated body releases its share of the budget (${protocol})`, async (t) => {
    const { port, acquired } = await startWithSmallBudget(t);
    const truncated = await beginBody(protocol, port, 6, '"');
    const other = await beginBody(protocol, port, 4, '"');
    await until(() => acquired() === 10);

    truncated.destroy();
    await until(() => acquired() === 4);
    other.destroy();
    await until(() => acquired() === 0);
  });

  test(`a body that exceeds its time limit releases its share of the budget (${protocol})`, async (t) => {
    const { port, acquired } = await startWithSmallBudget(t, { bodyMs: 300 });
    const slow = await beginBody(protocol, port, 10, '"');

    assert.equal(await slow.status(), 408);
    assert.equal(acquired(), 0);
    slow.destroy();
  });
}

test('one address cannot use more than its share of the budget', () => {
  const budget = new BodyBudget(16, { bytesPerIpMax: 4 });

  assert.ok(budget.tryAcquire(4, 'a'));
  assert.ok(!budget.tryAcquire(1, 'a'));
  for (const ipKey of ['b', 'c', 'd']) assert.ok(budget.tryAcquire(4, ipKey));
  assert.ok(!budget.tryAcquire(1, 'e'), 'the total budget is a limit, too');
  budget.release(3, 'a');

  assert.ok(!budget.tryAcquire(4, 'a'));
  assert.ok(budget.tryAcquire(3, 'a'));
});

for (const protocol of protocols) {
  test(`bodies that are declared but not sent do not block other bodies (${protocol})`, async (t) => {
    const post = route('POST', '/', async (exchange) => json(200, { body: await exchange.body() }));
    const bytes = bodiesBytesMax / 8;
    const { port } = await startHttp(t, [post], { limits: { bodyBytesMax: bytes } });
    const declared = await Promise.all(
      Array.from({ length: 8 }, () => beginBody(protocol, port, bytes, '"')),
    );
    t.after(() => {
      for (const client of declared) client.destroy();
    });

    const headers = { 'content-type': type };
    const answer = await ask(protocol, port, 'POST', '/', { headers, body: '"here"' });

    assert.equal(answer.status, 200);
  });
}
