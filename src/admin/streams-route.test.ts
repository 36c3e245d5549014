import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ask } from '../../test/support/clients/ask.js';
import { startOpenApiCheck } from '../../test/support/openapi/observer.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { StreamProcess } from '../../test/support/stream-process.js';
import { Failure } from '../errors.js';
import { selectOpenStreams } from '../stream/open-streams/open-stream.js';
import { streamsRoute } from './streams-route.js';

/**
 * Serves `GET /v1/streams` to an API key with this user prefix, or without a prefix. With `refusal`,
 * authentication fails with it.
 */
async function serve(t: TestContext, userPrefix?: string, refusal?: Failure) {
  const streams = await StreamProcess.open();
  const { port } = await startHttp(t, [
    streamsRoute({
      listOpenStreams: async (query) => selectOpenStreams(streams.registry.streams, 'p', query),
      authenticate: async () => {
        if (refusal !== undefined) throw refusal;
        return { userPrefix };
      },
    }),
  ]);
  const stopCheck = startOpenApiCheck(port);
  t.after(stopCheck);
  const list = (query = '') => ask('h2', port, 'GET', `/v1/streams${query}`);
  const listUsers = async (query: string) => {
    const { items } = (await list(query)).body as { items: { user: string }[] };
    return items.map(({ user }) => user);
  };
  return { streams, list, listUsers };
}

test('an open stream is listed with its client, its process and how far it is behind', async (t) => {
  const { streams, list } = await serve(t);
  const { stream } = await streams.openStream({
    ...{ user: 'auth0|1', session: 's1', publicId: 'f'.repeat(32), openedAt: 1_800_000_000_000 },
    client: { address: '2001:db8::1', userAgent: 'browser/1' },
  });
  await streams.publish('x');

  const { status, headers, body } = await list();

  assert.equal(status, 200);
  assert.equal(headers['cache-control'], 'no-store');
  const { unsentBytes } = stream;
  assert.ok(unsentBytes > 0);
  assert.deepEqual(body, {
    items: [
      {
        ...{ id: stream.id, stream: 'f'.repeat(32), user: 'auth0|1', session: 's1', process: 'p' },
        ...{ openedAt: 1_800_000_000_000, address: '2001:db8::1', userAgent: 'browser/1' },
        ...{ eventsBehind: stream.eventsBehind, unsentBytes },
      },
    ],
    ...{ next: stream.id, more: false },
  });
});

test('an empty list has no `next` field', async (t) => {
  const { list } = await serve(t);

  assert.deepEqual((await list()).body, { items: [], more: false });
});

test('pages have 100 streams unless the query has a limit', async (t) => {
  const { streams, list } = await serve(t);
  await streams.openStreams(201);
  const walk = async (limit: string) => {
    const sizes: number[] = [];
    const ids: string[] = [];
    let after = '';
    for (let more = true; more; ) {
      const { body } = await list(`?after=${after}${limit}`);
      const page = body as { items: { id: string }[]; next: string; more: boolean };
      sizes.push(page.items.length);
      ids.push(...page.items.map(({ id }) => id));
      ({ next: after, more } = page);
    }
    assert.deepEqual(ids, streams.ids);
    return sizes;
  };

  assert.deepEqual(await walk(''), [100, 100, 1]);
  assert.deepEqual(await walk('&limit=67'), [67, 67, 67]);
  assert.deepEqual(await walk('&limit=1000'), [201]);
});

test('a key with a user prefix gets the streams of users with that prefix only', async (t) => {
  const { streams, list, listUsers } = await serve(t, 'shop:');
  for (const user of ['1', 'shop:1', 'shop:2', 'shop', 'Shop:1'])
    await streams.openStream({ user });

  assert.deepEqual(await listUsers(''), ['shop:1', 'shop:2']);
  assert.deepEqual(await listUsers('?user=shop:2'), ['shop:2']);
  const { status, body } = await list('?user=1');
  assert.deepEqual({ status, name: body['name'] }, { status: 403, name: 'user_not_allowed' });
});

test('a key with an empty user prefix gets the streams of every user', async (t) => {
  const { streams, listUsers } = await serve(t, '');
  for (const user of ['1', 'shop:1']) await streams.openStream({ user });

  assert.deepEqual(await listUsers(''), ['1', 'shop:1']);
  assert.deepEqual(await listUsers('?user=1'), ['1']);
});

// [query, field]
const refusedQueries: readonly (readonly [string, string])[] = [
  ['topic=orders', 'topic'],
  ['User=1', 'User'],
  ['user=1&user=2', 'user'],
  ['user=', 'user'],
  ['user=a%20b', 'user'],
  ['user=%C3%A9', 'user'],
  ['user=*', 'user'],
  [`user=${'u'.repeat(256)}`, 'user'],
  ['after=1', 'after'],
  [`after=${'A'.repeat(32)}`, 'after'],
  [`after=${'a'.repeat(33)}`, 'after'],
  ['limit=', 'limit'],
  ['limit=0', 'limit'],
  ['limit=1001', 'limit'],
  ['limit=-1', 'limit'],
  ['limit=1.5', 'limit'],
  ['limit=1e2', 'limit'],
  ['limit=ten', 'limit'],
];

test('an invalid or unknown parameter is refused and named', async (t) => {
  const { list } = await serve(t);

  for (const [query, field] of refusedQueries) {
    const { status, body } = await list(`?${query}`);
    assert.equal(status, 400, query);
    assert.equal(body['name'], 'invalid_request', query);
    assert.deepEqual(body['info'], { field }, query);
  }
  for (const query of ['limit=1', 'limit=1000', `user=${'u'.repeat(255)}`, 'user=auth0%7C1'])
    assert.equal((await list(`?${query}`)).status, 200, query);
});

test('a client without the scope gets 403 before its query is checked', async (t) => {
  const { list } = await serve(
    t,
    '',
    new Failure('insufficient_scope', 'Cannot do this: no scope'),
  );

  assert.equal((await list('?limit=0')).status, 403);
});
