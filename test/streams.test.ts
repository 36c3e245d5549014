import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseClosing } from './support/clients/event-collector.js';
import { EventSourceClient } from './support/clients/event-source.js';
import type { H2Stream } from './support/clients/h2-client.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

/** Resolves when the latest event of the stream has this id. */
function waitForEvent(stream: H2Stream, id: string): Promise<true> {
  return stream.until(() => stream.ids.at(-1) === id || undefined);
}

test('two streams of a user receive the same events, and closing one does not affect the other', async (t) => {
  const system = await startSystem(t);
  const [here, there] = [await system.connect(), await system.connect()];
  const first = await here.listen('ada');
  const second = await there.listen('ada');

  const idForBoth = await system.publish('ada', 'to both');
  await Promise.all([waitForEvent(first, idForBoth), waitForEvent(second, idForBoth)]);
  first.abort();
  await first.ended();
  const idForOne = await system.publish('ada', 'to one');
  await waitForEvent(second, idForOne);

  assert.deepEqual(first.dataByType('message'), ['to both']);
  assert.deepEqual(second.dataByType('message'), ['to both', 'to one']);
});

test('opening a stream token again replaces its older stream', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const path = await client.streamPath('ada');
  const first = await client.openStream(path);
  await first.opening();

  const second = await client.openStream(path);
  await second.opening();
  const closing = await first.closing();
  const id = await system.publish('ada', 'to the second');
  await waitForEvent(second, id);

  assert.deepEqual(closing, { code: 'replaced', reconnect: false });
  assert.deepEqual(first.dataByType('message'), []);
  assert.ok(
    (first.retries.at(-1) ?? 0) >= 300_000,
    'otherwise the two would replace each other forever',
  );
});

test('over HTTP/1.1, opening a stream token again replaces its older stream', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const path = await client.streamPath('ada');
  const pages = [
    new EventSourceClient(`${system.url}${path}`, { protocol: 'http/1.1' }),
    new EventSourceClient(`${system.url}${path}`, { protocol: 'http/1.1' }),
  ];
  system.onClose(() => {
    for (const page of pages) page.source.close();
  });
  const getClosings = () => pages.flatMap((page) => page.dataByType('stream.close'));

  await until(() => getClosings().length > 0);
  const id = await system.publish('ada', 'to the one that is left');
  await until(() => pages.some(({ ids }) => ids.at(-1) === id));

  const replaced = { code: 'replaced', reconnect: false };
  assert.deepEqual(
    getClosings().map((data) => parseClosing(data)),
    [replaced],
  );
  assert.equal(pages.filter(({ ids }) => ids.includes(id)).length, 1);
});

test('at the limit of a user, a client can open its own stream again', async (t) => {
  const system = await startSystem(t, { env: { MAX_STREAMS_PER_USER: '2' } });
  const client = await system.connect();
  const path = await client.streamPath('ada');
  const own = await client.openStream(path);
  await own.opening();
  await client.listen('ada');
  const other = await client.openStream(await client.streamPath('ada'));

  const reopened = await client.openStream(path);
  const id = await system.publish('ada', 'to the reopened stream');
  await waitForEvent(reopened, id);

  assert.equal(await other.outcome(), 'refused');
  assert.deepEqual(await own.closing(), { code: 'replaced', reconnect: false });
});

test('a fetch-based client opens a stream with its access token', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const authorization = `Bearer ${await client.accessToken('ada')}`;

  const stream = await client.openStream('/stream/live', { authorization });
  const id = await system.publish('ada', { n: 1 }, { type: 'job.done' });
  await waitForEvent(stream, id);

  assert.deepEqual(
    stream.events.find((event) => event.id === id),
    {
      type: 'job.done',
      id,
      data: '{"n":1}',
    },
  );
});

test('the response head of a stream disables proxy buffering and caching', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();

  const { status, headers } = await client.listen('ada');

  assert.equal(status, 200);
  assert.equal(headers['content-type'], 'text/event-stream; charset=utf-8');
  assert.equal(headers['cache-control'], 'no-cache, no-store, no-transform');
  assert.equal(headers['x-accel-buffering'], 'no');
  assert.equal(headers['content-encoding'], undefined);
  assert.equal(headers['connection'], undefined);
});

test('stream.open and stream.close have exactly the documented fields', async (t) => {
  const system = await startSystem(t, { env: { STREAM_HEARTBEAT: '2000' } });
  const client = await system.connect();
  const bearer = await client.accessToken('ada');
  const { body } = await client.ask('POST', '/stream/token', { bearer });
  const stream = await client.openStream(`/stream/live/${body['streamToken']}`);
  const opening = await stream.event('stream.open');
  const byAccessToken = await client.listenAs(bearer);
  const other = JSON.parse((await byAccessToken.event('stream.open')).data);
  await client.ask('POST', '/logout', { bearer });
  const closing = await stream.event('stream.close');

  assert.deepEqual(JSON.parse(opening.data), {
    ...{ v: 1, resumed: true, reason: 'fresh', id: body['id'], stream: body['stream'] },
    ...{ user: system.userIds.ada, endsAt: body['endsAt'], heartbeat: 2000 },
    ...{ topics: [], memberships: 0 },
  });
  assert.equal(opening.id, body['id']);
  assert.match(String(body['stream']), /^[0-9a-f]{32}$/);
  assert.ok(Number(body['endsAt']) > Date.now());
  assert.match(other.stream, /^[0-9a-f]{32}$/);
  assert.notEqual(other.stream, body['stream']);
  assert.deepEqual(JSON.parse(closing.data), { code: 'revoked', reconnect: false, renew: false });
  assert.equal(stream.retries.length, 2);
});

test('with ?heartbeat=event, heartbeats are events without an id', async (t) => {
  const system = await startSystem(t, { env: { STREAM_HEARTBEAT: '1000' } });
  const client = await system.connect();
  const path = await client.streamPath('ada');

  const stream = await client.openStream(`${path}?heartbeat=event`);
  const heartbeat = await stream.event('stream.heartbeat');
  const silent = await client.listen('ada');
  await silent.until(() => (silent.comments > 0 ? true : undefined));

  assert.deepEqual(heartbeat, { type: 'stream.heartbeat', id: undefined, data: '{}' });
  assert.equal(stream.comments, 0);
  assert.deepEqual(silent.dataByType('stream.heartbeat'), []);
});

test('a stream token is also accepted in the Authorization header', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const token = (await client.streamPath('ada')).split('/').at(-1);
  const authorization = `Bearer ${token}`;

  const first = await client.openStream('/stream/live', { authorization });
  await first.opening();
  const second = await client.openStream('/stream/live', { authorization });
  const refused = await client.openStream('/stream/live', {
    authorization: `Bearer ${'a'.repeat(128)}`,
  });

  assert.deepEqual(await first.closing(), { code: 'replaced', reconnect: false });
  assert.equal((await second.opening()).reason, 'fresh');
  assert.equal(refused.status, 401);
});

test('a client with an access token that has received no event resumes from the id of its stream.open', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const bearer = await client.accessToken('ada');
  const first = await client.listenAs(bearer);
  const { id = '' } = await first.event('stream.open');
  first.abort();
  await system.publish('ada', 'meanwhile');

  const second = await client.listenAs(bearer, { 'last-event-id': id });
  await second.until(() => second.dataByType('message')[0]);

  assert.deepEqual(await second.opening(), { resumed: true, reason: 'resumed', id });
  assert.deepEqual(second.dataByType('message'), ['meanwhile']);
});

test('HEAD and DELETE of a stream get 405 with the allowed methods', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const answers = [];
  for (const path of ['/stream/live', await client.streamPath('ada')]) {
    for (const method of ['HEAD', 'DELETE', 'OPTIONS']) {
      const { status, headers } = await client.ask(method, path);
      answers.push([method, status, headers['allow']]);
    }
  }

  const answersPerPath = [
    ['HEAD', 405, 'GET, OPTIONS'],
    ['DELETE', 405, 'GET, OPTIONS'],
    ['OPTIONS', 204, 'GET, OPTIONS'],
  ];
  assert.deepEqual(answers, [...answersPerPath, ...answersPerPath]);
});

test('the user count is sent to every stream when it changes', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const ada = await client.listen('ada');
  await ada.until(() => ada.dataByType('count').at(-1) === '1' || undefined);

  const bob = await client.listen('bob');
  await client.listen('ada'); // A second stream is not a second user.
  await bob.until(() => bob.dataByType('count').at(-1) === '2' || undefined);
  await ada.until(() => ada.dataByType('count').at(-1) === '2' || undefined);
  bob.abort();
  await ada.until(() => ada.dataByType('count').at(-1) === '1' || undefined);

  assert.deepEqual(ada.dataByType('count'), ['1', '2', '1']);
});

test('all addresses of an IPv6 /64 count as one address', async (t) => {
  const env = { MAX_STREAMS_PER_IP: '2', TRUST_PROXY_HOPS: '1' };
  const system = await startSystem(t, { env });
  const client = await system.connect();
  const from = async (address: string) => {
    const path = await client.streamPath('ada');
    return (await client.openStream(path, { 'x-forwarded-for': address })).outcome();
  };

  const [first, second] = [await from('2001:db8::1'), await from('2001:db8::2')];
  const [third, neighbour] = [await from('2001:db8::3'), await from('2001:db8:0:1::1')];

  assert.deepEqual([first, second, third, neighbour], ['open', 'open', 'refused', 'open']);
});

const limits = [
  ['a user', { MAX_STREAMS_PER_USER: '2' }, 429, 'too_many_streams', { limit: 'user' }],
  ['an address', { MAX_STREAMS_PER_IP: '2' }, 429, 'too_many_streams', { limit: 'ip' }],
  ['the server', { MAX_STREAMS: '2' }, 503, 'service_unavailable', undefined],
] as const;

for (const [scope, env, status, name, info] of limits) {
  test(`a stream over the limit of ${scope} is refused until another stream ends`, async (t) => {
    const system = await startSystem(t, { env });
    const client = await system.connect();
    const streams = [await client.listen('ada'), await client.listen('ada')];
    const path = await client.streamPath('ada');

    const refused = await client.ask('GET', path, { headers: { accept: '*/*' } });
    const refusalInStream = await client.openStream(path);
    const closing = await refusalInStream.closing();

    assert.equal(refused.status, status);
    assert.equal(refused.body['name'], name);
    assert.deepEqual(refused.body['info'], info);
    assert.match(refused.headers['retry-after'] ?? '', /^[1-3]\d$/);
    assert.equal(refusalInStream.status, 200);
    assert.deepEqual(closing, { code: 'refused', reconnect: true });
    assert.ok(refusalInStream.retries.every((retryMs) => retryMs >= 10_000 && retryMs <= 30_000));
    assert.equal(refusalInStream.retries.length, 1);

    streams[0]?.abort();
    let retried = await client.openStream(path);
    await until(async () => {
      if ((await retried.outcome()) !== 'refused') return true;
      retried = await client.openStream(path);
      return false;
    });
    const id = await system.publish('ada', 'to both');
    await waitForEvent(retried, id);
  });
}

test('the stream limit of one user does not affect others', async (t) => {
  const system = await startSystem(t, { env: { MAX_STREAMS_PER_USER: '1' } });
  const client = await system.connect();

  const ada = await client.listen('ada');
  const bob = await client.listen('bob');
  const second = await client.openStream(await client.streamPath('ada'));

  assert.deepEqual(await second.closing(), { code: 'refused', reconnect: true });
  assert.ok(!ada.isEnded && !bob.isEnded);
});

test('concurrent requests open no more streams than the limit', async (t) => {
  const system = await startSystem(t, { env: { MAX_STREAMS_PER_USER: '5' } });
  const client = await system.connect();
  const authorization = `Bearer ${await client.accessToken('ada')}`;

  const opened = await Promise.all(
    Array.from({ length: 20 }, () => client.openStream('/stream/live', { authorization })),
  );
  const outcomes = await Promise.all(opened.map((stream) => stream.outcome()));

  assert.equal(outcomes.filter((outcome) => outcome === 'open').length, 5);
  assert.equal(outcomes.filter((outcome) => outcome === 'refused').length, 15);
});
