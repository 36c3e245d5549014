import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import type { GivenLimits } from '../src/identity/key-limits.js';
import { recordedLog, recordSecret } from './support/recording/record.js';
import { type SystemOptions, startSystem } from './support/servers/system.js';

async function startWithKey(t: TestContext, limits: GivenLimits, options: SystemOptions = {}) {
  const system = await startSystem(t, options);
  const { key } = await system.runAdmin(({ apiKeys }) =>
    apiKeys.create({ name: 'limited', scopes: ['publish', 'metrics'], ...limits }),
  );
  recordSecret(key);
  const client = await system.connect();
  const post = (json: unknown) => client.ask('POST', '/v1/events', { bearer: key, json });
  const postLines = (body: string | PassThrough) => {
    const headers = { 'content-type': 'application/x-ndjson' };
    return client.ask('POST', '/v1/events', { bearer: key, headers, body });
  };
  return { system, client, key, post, postLines };
}

const info = { field: 'to', userPrefix: 'shop:' };

test('a key with a user prefix publishes only to users of this prefix, in every form of body', async (t) => {
  const { system, post, postLines } = await startWithKey(t, { userPrefix: 'shop:' });
  const allowed = { to: { users: ['shop:1', 'shop:2'] }, data: 1 };

  assert.equal((await post(allowed)).status, 201);
  for (const to of ['all', { sessions: ['shop:1'] }, { users: ['shop:1', '1'] }]) {
    for (const volatile of [false, true]) {
      const event = { to, data: 1, volatile };
      const one = await post(event);
      const many = await post([allowed, event]);
      const lines = await postLines(
        [allowed, event].map((line) => JSON.stringify(line)).join('\n'),
      );

      for (const { status, body } of [one, many, lines])
        assert.deepEqual([status, body['name']], [403, 'user_not_allowed']);
      assert.deepEqual(one.body['info'], info);
      assert.deepEqual(many.body['info'], { ...info, index: 1 });
      assert.deepEqual(lines.body['info'], { ...info, index: 1, published: 0 });
      assert.match(String(one.body['message']), /users whose ids begin with shop:/);
    }
  }
  const stored = await withDatabase(loadConfig(system.env), recordedLog, (db) =>
    db.query(sql`select seq from events where seq > 0 and control is null`),
  );
  assert.equal(stored.length, 1);
});

test('a key with an empty user prefix publishes to everybody', async (t) => {
  const { post } = await startWithKey(t, { userPrefix: '' });

  for (const to of ['all', { users: ['1'] }, { sessions: ['a'] }])
    assert.equal((await post({ to, data: 1 })).status, 201);
});

test('a key that expires while its body of JSON lines is open publishes nothing more', async (t) => {
  const time = { now: Date.now() };
  const expiresAt = time.now + 60_000;
  const { system, client, post, postLines } = await startWithKey(
    t,
    { expiresAt },
    { wallClock: () => time.now },
  );
  const stream = await client.listen('ada');
  const line = (data: string) => `${JSON.stringify({ to: 'all', data })}\n`;
  const body = new PassThrough();

  const answering = postLines(body);
  body.write(line('first'));
  await stream.until(() => stream.dataByType('message').includes('first') || undefined);
  time.now = expiresAt - 1;
  body.write(line('last'));
  await stream.until(() => stream.dataByType('message').includes('last') || undefined);
  time.now = expiresAt;
  body.write(line('too late'));
  const { status, body: problem, headers } = await answering;
  const volatile = await post({ to: 'all', data: 'too late', volatile: true });
  await system.publish('all', 'marker');
  await stream.until(() => stream.dataByType('message').includes('marker') || undefined);

  assert.deepEqual([status, problem['name']], [401, 'expired_token']);
  assert.deepEqual(problem['info'], { published: 2 });
  assert.match(headers['www-authenticate'] ?? '', /^Bearer/);
  assert.deepEqual([volatile.status, volatile.body['name']], [401, 'expired_token']);
  assert.deepEqual(stream.dataByType('message'), ['first', 'last', 'marker']);
});

test('a key over its rate gets 429 on every route, until its next request is due', async (t) => {
  const time = { now: 1000 };
  const options = { monotonicClock: () => time.now };
  const { system, client, key, post } = await startWithKey(t, { rate: '3/30000' }, options);
  const event = { to: 'all', data: 1 };
  const ask = (path: string) => client.ask('GET', path, { bearer: key });

  assert.equal((await post(event)).status, 201);
  assert.equal((await client.ask('POST', '/events', { bearer: key, json: event })).status, 201);
  assert.equal((await ask('/metrics')).status, 200);
  const refused = [await post(event), await ask('/metrics')];

  for (const { status, body, headers } of refused) {
    assert.deepEqual([status, body['name']], [429, 'too_many_requests']);
    assert.deepEqual(body['info'], { retryAfter: 10 });
    assert.equal(headers['retry-after'], '10');
  }
  await system.publish('all', 'with another key');
  time.now += 9999;
  assert.equal((await post(event)).status, 429);
  time.now += 1;
  assert.equal((await post(event)).status, 201);
});

test('a changed rate applies to the next request', async (t) => {
  const { system, post } = await startWithKey(t, { rate: '1/3600000' });
  const statuses: number[] = [];
  const publish = async () => statuses.push((await post({ to: 'all', data: 1 })).status);

  await publish();
  await publish();
  await system.runAdmin(({ apiKeys }) => apiKeys.change('limited', { rate: null }));
  await publish();
  await publish();

  assert.deepEqual(statuses, [201, 429, 201, 201]);
});

test('a key with topics publishes only to topics that fit them, in every form of body', async (t) => {
  const { system, post, postLines } = await startWithKey(t, {});
  await withDatabase(loadConfig(system.env), recordedLog, (db) =>
    db.execute(sql`update api_keys set topics = '["orders:*"]' where name = 'limited'`),
  );
  const allowed = { to: { topics: ['orders:17', 'orders:18'] }, data: 1 };
  const refusals = [
    [{ topics: ['orders:17', 'news'] }, { field: 'to.topics', topics: ['news'] }],
    [
      { topics: ['orders:17'], users: ['1'] },
      { field: 'to', topics: [] },
    ],
    ['all', { field: 'to', topics: [] }],
  ] as const;

  assert.equal((await post(allowed)).status, 201);
  for (const [to, info] of refusals) {
    const event = { to, data: 1 };
    const one = await post({ ...event, volatile: true });
    const many = await post([allowed, event]);
    const lines = await postLines([allowed, event].map((line) => JSON.stringify(line)).join('\n'));

    for (const { status, body } of [one, many, lines])
      assert.deepEqual([status, body['name']], [403, 'topic_not_allowed']);
    assert.deepEqual(one.body['info'], info);
    assert.deepEqual(many.body['info'], { ...info, index: 1 });
    assert.deepEqual(lines.body['info'], { ...info, index: 1, published: 0 });
  }
});
