import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { H2Stream } from './support/clients/h2-client.js';
import { type System, startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

/** Resolves when the latest event of the stream has this id. */
function waitForEvent(stream: H2Stream, id: unknown): Promise<true> {
  return stream.until(() => stream.ids.at(-1) === id || undefined);
}

/** Publishes an event for ada and asserts that it is the next one after `previousId`. */
async function assertNothingWritten(
  system: System,
  stream: H2Stream,
  previousId: string,
): Promise<void> {
  const nextId = await system.publish('ada', 'next');
  await waitForEvent(stream, nextId);
  const [previousSeq, nextSeq] = [previousId, nextId].map((id) => Number(id.split('-')[1]));
  assert.equal(nextSeq, (previousSeq ?? 0) + 1);
}

test('a batch for several audiences is delivered in order', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const [ada, bob] = [await client.listen('ada'), await client.listen('bob')];
  const { userIds } = system;

  const { status, body } = await system.post([
    { to: { users: [userIds.ada] }, data: 'a' },
    { to: { users: [userIds.ada, userIds.bob, userIds.ada] }, data: 'b', type: 'both' },
    { to: 'all', data: null },
    { to: { users: [userIds.bob] }, data: '' },
  ]);
  const ids = body['ids'] as string[];
  await Promise.all([waitForEvent(ada, ids[2]), waitForEvent(bob, ids[3])]);

  assert.equal(status, 201);
  assert.deepEqual(ada.ids, ids.slice(0, 3));
  assert.deepEqual(bob.ids, ids.slice(1));
  assert.deepEqual(ada.dataByType('both'), ['b']);
  assert.deepEqual(bob.dataByType('message'), ['null', '']);
});

test('an event for users, sessions and topics together reaches each stream once', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const [ada, bob] = [await client.listen('ada'), await client.listen('bob')];
  const me = await client.ask('GET', '/me', { bearer: await client.accessToken('ada') });
  const session = String(me.body['sessionId']);
  const users = [system.userIds.ada, system.userIds.bob];

  const { status } = await system.post([
    { to: { users, sessions: [session], topics: ['orders:17', 'news'] }, data: 'for both' },
    { to: { sessions: [session], topics: ['orders:17'] }, data: 'for a login and a topic' },
    { to: { topics: ['orders:17'] }, data: 'for a topic' },
  ]);
  const last = await system.publish('all', 'last');
  await Promise.all([waitForEvent(ada, last), waitForEvent(bob, last)]);

  assert.equal(status, 201);
  assert.deepEqual(bob.dataByType('message'), ['for both', 'last']);
  assert.deepEqual(ada.dataByType('message'), ['for both', 'for a login and a topic', 'last']);
});

test('an event for 1000 recipients is accepted, and an event for 1001 is rejected', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const [ada, bob] = [await client.listen('ada'), await client.listen('bob')];
  const others = Array.from({ length: 999 }, (_, index) => String(index + 1000));

  const { body } = await system.post({ to: { users: [...others, system.userIds.ada] }, data: 'x' });
  await waitForEvent(ada, body['id']);
  const tooMany = { users: [...others, system.userIds.ada, '1'] };
  const refused = await system.post({ to: tooMany, data: 'x' });
  const bobId = await system.publish('bob', 'for bob');
  await waitForEvent(bob, bobId);

  assert.deepEqual(ada.dataByType('message'), ['x']);
  assert.deepEqual(bob.dataByType('message'), ['for bob']);
  assert.equal(refused.status, 400);
  assert.deepEqual(refused.body['info'], { field: 'to.users' });
});

test('an event for a session reaches only the streams of that login', async (t) => {
  const system = await startSystem(t);
  const [here, there] = [await system.connect(), await system.connect()];
  const [mine, other] = [await here.listen('ada'), await there.listen('ada')];
  const me = await here.ask('GET', '/me', { bearer: await here.accessToken('ada') });

  await system.post({ to: { sessions: [me.body['sessionId']] }, data: 'for one login' });
  const last = await system.publish('ada', 'for all of her');
  await Promise.all([waitForEvent(mine, last), waitForEvent(other, last)]);

  assert.deepEqual(mine.dataByType('message'), ['for one login', 'for all of her']);
  assert.deepEqual(other.dataByType('message'), ['for all of her']);
});

test('a volatile event has no id, is not replayed and is not stored', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const stream = await client.listen('ada');
  const first = await system.publish('ada', 'kept');
  await waitForEvent(stream, first);

  const { body } = await system.post({ to: 'all', data: 'now', type: 'now', volatile: true });
  await stream.event('now');
  const resumed = await client.listen('ada', { 'last-event-id': first });
  await assertNothingWritten(system, stream, first);
  await resumed.until(() => resumed.dataByType('message')[0]);

  assert.deepEqual(body, { id: null });
  assert.deepEqual(resumed.dataByType('now'), []);
});

test('an expired event is not replayed', async (t) => {
  let aheadMs = 0;
  const system = await startSystem(t, { wallClock: () => Date.now() + aheadMs });
  const client = await system.connect();
  const first = await system.publish('ada', 'first');
  await system.publish('ada', 'for a minute', { expiresIn: 60_000 });
  await system.publish('ada', 'for an hour', { expiresIn: 3_600_000 });

  aheadMs = 60_001;
  const stream = await client.listen('ada', { 'last-event-id': first });
  await stream.until(() => stream.dataByType('message')[0]);

  assert.deepEqual(stream.dataByType('message'), ['for an hour']);
});

test('a retry with the same idempotency key publishes nothing, and another body with this key gets 409', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const stream = await client.listen('ada');
  const event = { to: 'all', data: 1 };
  const volatile = { to: 'all', data: 2, type: 'now', volatile: true };
  const key = { 'idempotency-key': 'order 7' };

  const first = await system.post([event, volatile], key);
  const [retry, concurrentRetry] = await Promise.all([
    system.post([event, volatile], key),
    system.post([event, volatile], key),
  ]);
  const otherBody = await system.post([event, event], key);
  const [id] = first.body['ids'] as string[];
  await assertNothingWritten(system, stream, String(id));

  assert.equal(first.status, 201);
  assert.deepEqual([retry.status, retry.body], [201, first.body]);
  assert.deepEqual([concurrentRetry.status, concurrentRetry.body], [201, first.body]);
  assert.deepEqual(stream.dataByType('now'), ['2']);
  assert.equal(otherBody.status, 409);
  assert.equal(otherBody.body['name'], 'conflict');
});

test('an event with its own idempotency key is published once, whether it is sent alone or in an array', async (t) => {
  const system = await startSystem(t);
  const stream = await (await system.connect()).listen('ada');
  const keyed = (data: string) => ({ to: 'all', data, idempotencyKey: `key of ${data}` });

  const alone = await system.post(keyed('a'));
  const array = await system.post([keyed('b'), keyed('a'), { to: 'all', data: 'c' }]);
  const retry = await system.post([keyed('b'), keyed('a')]);
  const single = await system.post(keyed('b'));
  const conflict = await system.post([
    { to: 'all', data: 'never' },
    { ...keyed('a'), data: 'another' },
  ]);
  const withHeader = await system.post([keyed('d')], { 'idempotency-key': 'all of them' });
  const last = await system.publish('ada', 'last');
  await waitForEvent(stream, last);

  const [b, a, c] = array.body['ids'] as string[];
  assert.deepEqual([alone.status, alone.body], [201, { id: a }]);
  assert.deepEqual([retry.status, retry.body], [201, { ids: [b, a] }]);
  assert.deepEqual([single.status, single.body], [201, { id: b }]);
  assert.deepEqual([conflict.status, conflict.body['name']], [409, 'conflict']);
  assert.deepEqual(conflict.body['info'], { field: 'idempotencyKey', index: 1 });
  assert.equal(withHeader.status, 400);
  assert.deepEqual(withHeader.body['info'], { field: 'idempotencyKey', index: 0 });
  assert.deepEqual(stream.dataByType('message'), ['a', 'b', 'c', 'last']);
  assert.deepEqual(stream.ids.slice(-4), [a, b, c, last]);
});

const validEvent = { to: 'all', data: 1 };
const longData = 'x'.repeat(65_537);
// [case, body, status, failure name, info]
const refusals: readonly [string, unknown, number, string, object | undefined][] = [
  ['nothing', undefined, 400, 'invalid_request', { field: 'event' }],
  ['no event', [], 400, 'invalid_request', { max: 1000 }],
  ['1001 events', Array(1001).fill(validEvent), 400, 'invalid_request', { max: 1000 }],
  [
    'a field missing',
    [validEvent, { to: 'all' }],
    400,
    'missing_required_parameter',
    { body: ['data'], index: 1 },
  ],
  [
    'an empty idempotency key',
    { ...validEvent, idempotencyKey: '' },
    400,
    'invalid_request',
    { field: 'idempotencyKey' },
  ],
  [
    'an idempotency key of 256 characters',
    [validEvent, { ...validEvent, idempotencyKey: 'k'.repeat(256) }],
    400,
    'invalid_request',
    { field: 'idempotencyKey', index: 1 },
  ],
  [
    'a number as an idempotency key',
    { ...validEvent, idempotencyKey: 7 },
    400,
    'invalid_request',
    { field: 'idempotencyKey' },
  ],
  [
    'an idempotency key of a volatile event',
    { ...validEvent, idempotencyKey: 'k', volatile: true },
    400,
    'invalid_request',
    { field: 'idempotencyKey' },
  ],
  [
    'an unknown field',
    [validEvent, validEvent, { ...validEvent, id: 7 }],
    400,
    'invalid_request',
    { field: 'id', index: 2 },
  ],
  [
    'a reserved type',
    [{ ...validEvent, type: 'stream.open' }],
    400,
    'invalid_request',
    { field: 'type', index: 0 },
  ],
  [
    'a type with a line end',
    { ...validEvent, type: 'a\nb' },
    400,
    'invalid_request',
    { field: 'type' },
  ],
  ['no recipients', { to: {}, data: 1 }, 400, 'invalid_request', { field: 'to' }],
  ['no users', { to: { users: [] }, data: 1 }, 400, 'invalid_request', { field: 'to.users' }],
  [
    'a number as a user id',
    [validEvent, { to: { users: [42] }, data: 1 }],
    400,
    'invalid_request',
    { field: 'to.users', index: 1 },
  ],
  [
    'an invalid topic',
    { to: { users: ['1'], topics: ['orders:*'] }, data: 1 },
    400,
    'invalid_request',
    { field: 'to.topics' },
  ],
  [
    '101 topics',
    { to: { topics: Array.from({ length: 101 }, (_, index) => String(index)) }, data: 1 },
    400,
    'invalid_request',
    { field: 'to.topics' },
  ],
  [
    'an unknown member of "to"',
    { to: { users: ['1'], groups: ['1'] }, data: 1 },
    400,
    'invalid_request',
    { field: 'to.groups' },
  ],
  [
    'NUL',
    [validEvent, { to: 'all', data: '\0' }],
    400,
    'invalid_request',
    { field: 'data', index: 1 },
  ],
  [
    'expiresIn too long',
    { ...validEvent, expiresIn: 1e12 },
    400,
    'invalid_request',
    { field: 'expiresIn' },
  ],
  [
    'data over its limit',
    [validEvent, { to: 'all', data: longData }],
    413,
    'payload_too_large',
    { field: 'data', index: 1 },
  ],
];

test('the response to an invalid event has its field and index, and nothing is written', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const stream = await client.listen('ada');
  const previousId = await system.publish('ada', 'before');

  for (const [what, json, status, name, info] of refusals) {
    const answer = await system.post(json);

    assert.equal(answer.status, status, what);
    assert.equal(answer.body['name'], name, what);
    assert.deepEqual(answer.body['info'], info, what);
  }
  await assertNothingWritten(system, stream, previousId);
});

test('publishing requires an API key', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();

  const anonymous = await client.ask('POST', '/events', { json: validEvent });
  const user = await client.ask('POST', '/events', {
    json: validEvent,
    bearer: await client.accessToken('ada'),
  });
  const forged = await client.ask('POST', '/events', {
    json: validEvent,
    bearer: `${system.apiKey.slice(0, -1)}${system.apiKey.endsWith('A') ? 'E' : 'A'}`,
  });

  assert.deepEqual([anonymous.status, user.status, forged.status], [401, 401, 401]);
  assert.ok(anonymous.headers['www-authenticate']);
});

test('publish bodies over PUBLISH_BODIES_LIMIT in total get 503, and logins still succeed', async (t) => {
  const env = { PUBLISH_BODIES_LIMIT: '8388608', BODY_TIMEOUT: '60000' };
  const system = await startSystem(t, { env });
  const [slow, client] = [await system.connect(), await system.connect()];
  const bearer = system.apiKey;
  const json = { to: 'all', data: 'x' };
  const publish = () => client.ask('POST', '/events', { bearer, json });
  const slowUpload = slow.session.request({
    ...{ ':method': 'POST', ':path': '/events', authorization: `Bearer ${bearer}` },
    ...{ 'content-type': 'application/json', 'content-length': '8388608' },
  });
  slowUpload.on('error', () => {}); // The connection is cut below.
  slowUpload.write('[');
  let refused = await publish();
  await until(async () => {
    if (refused.status === 201) refused = await publish(); // Accepted until the slow body counts.
    return refused.status !== 201;
  });

  const headers = { 'content-type': 'application/x-ndjson' };
  const line = '{"to":"all","data":"x"}';
  const lines = await client.ask('POST', '/events', { bearer, headers, body: line });
  const login = await client.login('ada');
  slow.destroy();
  let published = await publish();
  await until(async () => {
    if (published.status === 503) published = await publish();
    return published.status !== 503;
  });
  const statuses = []; // Together these bodies would exceed the limit.
  for (let count = 0; count < 10; count += 1) {
    statuses.push((await client.ask('POST', '/events', { bearer, headers, body: line })).status);
  }

  for (const { status, body, headers } of [refused, lines]) {
    assert.deepEqual([status, body['name']], [503, 'service_unavailable']);
    assert.equal(headers['retry-after'], '1');
  }
  assert.ok(login.accessToken);
  assert.equal(published.status, 201);
  assert.deepEqual(statuses, Array(10).fill(201));
});

test('every stream gets each event of concurrent publishers once, in the same order', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const streams = [await client.listen('ada'), await client.listen('bob')];

  const answers = await Promise.all(
    Array.from({ length: 500 }, (_, index) => system.post({ to: 'all', data: String(index) })),
  );
  const ids = answers.map(({ body }) => String(body['id']));
  await Promise.all(
    streams.map((stream) => stream.until(() => stream.ids.length === 500 || undefined)),
  );

  assert.equal(new Set(ids).size, 500);
  for (const stream of streams) {
    assert.deepEqual(
      stream.ids,
      [...ids].sort((a, b) => Number(a.split('-')[1]) - Number(b.split('-')[1])),
    );
  }
});
