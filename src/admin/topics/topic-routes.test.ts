import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { collectingLog } from '../../../test/support/recording/collecting-log.js';
import { recordSecret } from '../../../test/support/recording/record.js';
import { startSystem } from '../../../test/support/servers/system.js';
import { withAccounts } from '../../commands/accounts.js';
import { loadConfig } from '../../config/config.js';

interface KeyLimits {
  readonly scopes?: readonly string[];
  readonly userPrefix?: string;
  readonly topics?: readonly string[];
}

async function startTopics(t: TestContext, { scopes = ['topics'], ...limits }: KeyLimits = {}) {
  const lines: Record<string, unknown>[] = [];
  const system = await startSystem(t, { log: collectingLog(lines) });
  const client = await system.connect();
  const { key: bearer, id: keyId } = await withAccounts(loadConfig(system.env), ({ apiKeys }) =>
    apiKeys.create({ name: 'topics', scopes, ...limits }),
  );
  recordSecret(bearer);
  const post = async (path: string, json: unknown, status = 200) => {
    const answer = await client.ask('POST', `/v1/topics/${path}`, { bearer, json });
    assert.equal(answer.status, status, `${JSON.stringify(json).slice(0, 200)}: ${answer.text}`);
    return answer.body;
  };
  const list = async (query: string, status = 200) => {
    const answer = await client.ask('GET', `/v1/topics/members?${query}`, { bearer });
    assert.equal(answer.status, status, `${query}: ${answer.text}`);
    return answer.body as { items: Record<string, unknown>[]; next?: string; more: boolean };
  };
  /** Returns the audit lines of an event, without the client. */
  const findAudited = (event: string) =>
    lines
      .filter((line) => line['audit'] === true && line['event'] === event)
      .map(({ keyId: by, topic, added, removed }) => ({ by, topic, added, removed }));
  return { system, client, keyId, post, list, findAudited };
}

function createIds(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `u${index}`);
}

const topic = 'a';
/** Each with the field that is named. */
const refusedChanges = [
  [{ add: ['1'] }, undefined],
  [{ topic: 7, add: ['1'] }, 'topic'],
  [{ topic: '', add: ['1'] }, 'topic'],
  [{ topic: 'herald:a', add: ['1'] }, 'topic'],
  [{ topic: 'x'.repeat(129), add: ['1'] }, 'topic'],
  [{ topic }, 'add'],
  [{ topic, add: [], remove: [] }, 'add'],
  [{ topic, add: '1' }, 'add'],
  [{ topic, add: [1] }, 'add'],
  [{ topic, add: [null] }, 'add'],
  [{ topic, add: [[]] }, 'add'],
  [{ topic, add: ['a b'] }, 'add'],
  [{ topic, add: ['x'.repeat(256)] }, 'add'],
  [{ topic, add: [{}] }, 'add'],
  [{ topic, add: [{ user: 7 }] }, 'add'],
  [{ topic, add: [{ user: '1', right: [] }] }, 'add'],
  [{ topic, add: [{ user: '1', rights: 'listen' }] }, 'add'],
  [{ topic, add: [{ user: '1', rights: null }] }, 'add'],
  [{ topic, add: [{ user: '1', rights: ['publish'] }] }, 'add'],
  [{ topic, add: [{ user: '1', rights: ['listen', 'listen'] }] }, 'add'],
  [{ topic, add: ['1', '1'] }, 'add'],
  [{ topic, add: ['1', { user: '1' }] }, 'add'],
  [{ topic, add: ['1'], remove: ['1'] }, 'add'],
  [{ topic, remove: ['1', '1'] }, 'add'],
  [{ topic, remove: [{ user: '1' }] }, 'remove'],
  [{ topic, remove: {} }, 'remove'],
  [{ topic, add: createIds(1001) }, 'add'],
  [{ topic, remove: createIds(1001) }, 'remove'],
  [{ topic, add: createIds(1000), remove: ['x'] }, 'add'],
  [{ topic, add: ['1'], users: [] }, 'users'],
] as const;

test('an invalid change of members is refused, the field is named, and nothing changes', async (t) => {
  const { post, list } = await startTopics(t);

  for (const [json, field] of refusedChanges) {
    const { info } = await post('members', json, 400);
    assert.equal((info as { field?: string }).field, field, JSON.stringify(json).slice(0, 200));
  }

  assert.deepEqual(await list('topic=a'), { items: [], more: false });
  await post('members', { topic, add: createIds(999), remove: ['x'] });
  const rights = ['listen', 'history', 'presence'];
  const wide = createIds(1000).map((id) => ({ user: id.padEnd(255, 'x'), rights }));
  await post('members', { topic: 'y'.repeat(128), add: wide });
});

test('a body of more than 512 KiB is refused', async (t) => {
  const { post } = await startTopics(t);
  const json = { topic: 'a', add: ['1'] };
  const padding = (bytes: number) => ' '.repeat(bytes);

  const { info } = await post('members', { ...json, add: [padding(524_288)] }, 413);

  assert.equal((info as { bytesMax?: number }).bytesMax, 524_288);
  await post('revoke', { topic: 'a', users: [padding(524_288)] }, 413);
  const fixedBytes = JSON.stringify({ ...json, add: [''] }).length;
  await post('members', { ...json, add: [padding(524_288 - fixedBytes)] }, 400);
});

const refusedRevocations = [
  [{ users: ['1'] }, undefined],
  [{ topic }, undefined],
  [{ topic: 'a b', users: ['1'] }, 'topic'],
  [{ topic, users: [] }, 'users'],
  [{ topic, users: '1' }, 'users'],
  [{ topic, users: [{ user: '1' }] }, 'users'],
  [{ topic, users: ['1', '1'] }, 'users'],
  [{ topic, users: createIds(1001) }, 'users'],
  [{ topic, users: ['1'], add: [] }, 'add'],
] as const;

test('an invalid revocation is refused, and the field is named', async (t) => {
  const { post } = await startTopics(t);

  for (const [json, field] of refusedRevocations) {
    const { info } = await post('revoke', json, 400);
    assert.equal((info as { field?: string }).field, field, JSON.stringify(json).slice(0, 200));
  }

  await post('revoke', { topic, users: createIds(1000) });
});

test('a key without the scope topics is refused', async (t) => {
  const { client, post, list } = await startTopics(t, { scopes: ['publish', 'streams'] });

  await post('members', {}, 403);
  await post('revoke', {}, 403);
  await list('', 403);
  const { status } = await client.ask('POST', '/v1/topics/members', { json: {} });
  assert.equal(status, 401);
});

test('a key names only the users and topics that its limits allow', async (t) => {
  const { post, list } = await startTopics(t, {
    ...{ userPrefix: 'shop:', topics: ['orders:*', 'news'] },
  });
  await post('members', { topic: 'orders:1', add: ['shop:1', 'shop:2'] });
  await post('members', { topic: 'news', add: ['shop:1'], remove: ['shop:3'] });
  await post('revoke', { topic: 'orders:1', users: ['shop:2'] });

  const refusals = [
    ['members', { topic: 'orders', add: ['shop:1'] }, 'topic_not_allowed'],
    ['members', { topic: 'News', remove: ['shop:1'] }, 'topic_not_allowed'],
    ['revoke', { topic: 'orders', users: ['shop:1'] }, 'topic_not_allowed'],
    ['members', { topic: 'news', add: ['shop:1', { user: '1' }] }, 'user_not_allowed'],
    ['members', { topic: 'news', add: ['shop:1'], remove: ['1'] }, 'user_not_allowed'],
    ['revoke', { topic: 'news', users: ['shop:1', 'shop'] }, 'user_not_allowed'],
  ] as const;
  for (const [path, json, name] of refusals)
    assert.equal((await post(path, json, 403))['name'], name, JSON.stringify(json));
  await list('topic=orders', 403);
  await list('user=1', 403);

  const topics = (await list('user=shop:1')).items.map((item) => item['topic']);
  assert.deepEqual(topics, ['news', 'orders:1']);
});

test('lists have only what the limits of the key allow', async (t) => {
  const { system, client, list } = await startTopics(t, {
    ...{ userPrefix: 'shop:', topics: ['orders:*'] },
  });
  for (const json of [
    { topic: 'orders:1', add: ['shop:1', 'other:1'] },
    { topic: 'news', add: ['shop:1'] },
  ]) {
    const options = { bearer: system.apiKey, json };
    assert.equal((await client.ask('POST', '/v1/topics/members', options)).status, 200);
  }

  const users = (await list('topic=orders:1')).items.map((item) => item['user']);
  const topics = (await list('user=shop:1')).items.map((item) => item['topic']);

  assert.deepEqual([users, topics], [['shop:1'], ['orders:1']]);
});

test('members are listed by pages with their positions and rights', async (t) => {
  const { post, list } = await startTopics(t);
  const { id } = await post('members', {
    ...{ topic: 'a', add: ['2', '1', { user: '3', rights: ['listen', 'history'] }] },
  });
  await post('members', { topic: 'B', add: ['1'] });

  const first = await list('topic=a&limit=2');
  assert.deepEqual(first, {
    items: [
      { user: '1', topic: 'a', after: id, rights: [] },
      { user: '2', topic: 'a', after: id, rights: [] },
    ],
    ...{ next: '2', more: true },
  });
  const rights = ['listen', 'history'];
  assert.deepEqual(await list('topic=a&limit=2&after=2'), {
    ...{ items: [{ user: '3', topic: 'a', after: id, rights }], next: '3', more: false },
  });
  assert.deepEqual(
    (await list('user=1&limit=1')).items.map((item) => item['topic']),
    ['B'],
  );
  const second = await list('user=1&limit=1&after=B');
  assert.deepEqual([second.items[0]?.['topic'], second.more], ['a', false]);
  assert.deepEqual((await list('user=9')).items, []);
});

test('an invalid or unknown parameter of a list is refused and named', async (t) => {
  const { list } = await startTopics(t);
  const refused = [
    ['', 'topic'],
    ['topic=a&user=1', 'topic'],
    ['topic=a%20b', 'topic'],
    ['user=a%20b', 'user'],
    ['topic=a&after=a%20b', 'after'],
    ['user=1&after=a%20b', 'after'],
    ['topic=a&limit=0', 'limit'],
    ['topic=a&limit=1001', 'limit'],
    ['topic=a&topic=a', 'topic'],
    ['topic=a&page=1', 'page'],
  ] as const;

  for (const [query, field] of refused) {
    const { info } = (await list(query, 400)) as unknown as { info: { field?: string } };
    assert.equal(info.field, field, query);
  }
  await list('topic=a&limit=1000&after=');
});

test('changes and revocations are audited with the key, the topic and the first 100 users', async (t) => {
  const { keyId: by, post, findAudited } = await startTopics(t);
  const users = createIds(101);

  await post('members', { topic: 'a', add: ['1'], remove: ['2', '3'] });
  await post('members', { topic: 'b', add: users });
  await post('members', { topic: 'b', add: [] }, 400);
  await post('revoke', { topic: 'a', users: ['1'] });

  const none = { count: 0, userIds: [] };
  assert.deepEqual(findAudited('topic_members_changed'), [
    {
      ...{ by, topic: 'a', added: { count: 1, userIds: ['1'] } },
      removed: { count: 2, userIds: ['2', '3'] },
    },
    { by, topic: 'b', added: { count: 101, userIds: users.slice(0, 100) }, removed: none },
  ]);
  assert.deepEqual(findAudited('topic_revoked'), [
    { by, topic: 'a', added: undefined, removed: { count: 1, userIds: ['1'] } },
  ]);
});
