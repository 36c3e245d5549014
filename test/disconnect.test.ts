import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { H2Client } from './support/clients/h2-client.js';
import { skipFor } from './support/databases/new-database.js';
import { clusterFor } from './support/servers/cluster.js';
import { startSystem } from './support/servers/system.js';

async function startDisconnects(t: TestContext) {
  const time = { now: 1_800_000_000_000 };
  const system = await startSystem(t, { wallClock: () => time.now });
  const client = await system.connect();
  const ask = async (path: string, json: unknown, status = 200) => {
    const answer = await client.ask('POST', path, { bearer: system.apiKey, json });
    assert.equal(answer.status, status, answer.text);
    return answer.body;
  };
  const open = async (json: object) => {
    const { streamToken, stream: publicId } = await ask('/v1/tickets', json);
    const path = `/stream/live/${streamToken}`;
    const stream = await client.openStream(path);
    await stream.opening();
    return { stream, path, publicId };
  };
  /** Returns the status of a second open. */
  const reopen = async (path: string) => {
    const stream = await client.openStream(path);
    stream.abort();
    return stream.status;
  };
  return { system, client, time, ask, open, reopen };
}

test('a disconnect ends the streams of the user, voids the stream tokens, and returns its event id', async (t) => {
  const { system, ask, open, reopen } = await startDisconnects(t);
  const [first, second] = [await open({ user: 'a' }), await open({ user: 'a', session: 'phone' })];
  const other = await open({ user: 'a2' });
  const { streamToken: unopened } = await ask('/v1/tickets', { user: 'a' });

  const { id } = await ask('/v1/disconnect', { user: 'a' });
  const published = await ask('/events', { to: 'all', data: 'after' }, 201);

  const position = (text: unknown) => Number(String(text).split('-')[1]);
  assert.equal(position(published['id']), position(id) + 1);
  for (const { stream } of [first, second]) {
    assert.deepEqual(JSON.parse((await stream.event('stream.close')).data), {
      code: 'revoked',
      reconnect: false,
      renew: false,
    });
    assert.deepEqual(stream.dataByType('message'), []);
  }
  for (const path of [first.path, second.path, `/stream/live/${unopened}`])
    assert.equal(await reopen(path), 401);
  await other.stream.until(() => other.stream.dataByType('message').at(-1));
  const again = await open({ user: 'a' });
  await system.post({ to: { users: ['a'] }, data: 'again' });
  await again.stream.until(() => again.stream.dataByType('message').includes('again') || undefined);
  for (const { stream } of [other, again]) stream.abort();
});

test('a disconnect with stream ids ends only these streams; with renew, it asks their clients to renew the token', async (t) => {
  const { ask, open, reopen } = await startDisconnects(t);
  const [first, second] = [await open({ user: 'a' }), await open({ user: 'a' })];

  await ask('/v1/disconnect', { user: 'a', streams: [first.publicId], renew: true });

  const { code, reconnect, renew } = JSON.parse((await first.stream.event('stream.close')).data);
  assert.deepEqual({ code, reconnect, renew }, { code: 'revoked', reconnect: false, renew: true });
  assert.equal(await reopen(first.path), 401);
  await ask('/events', { to: { users: ['a'] }, data: 'to the second' }, 201);
  await second.stream.until(() => second.stream.dataByType('message').at(-1));
  second.stream.abort();
});

test('a disconnect takes the label or the listed id of a session, and events take only the id', async (t) => {
  const { client, ask, open, system } = await startDisconnects(t);
  const [byLabel, byId] = [
    await open({ user: 'a', session: 'web-7f' }),
    await open({ user: 'a', session: 'web-8a' }),
  ];
  const listed = await client.ask('GET', '/v1/streams?user=a', { bearer: system.apiKey });
  const items = listed.body['items'] as { stream: string; session: string }[];
  const getSession = ({ publicId }: { publicId: unknown }) =>
    items.find(({ stream }) => stream === publicId)?.session ?? '';
  const isReceived = (data: string) => () =>
    byLabel.stream.dataByType('message').includes(data) || undefined;

  await ask('/v1/events', { to: { sessions: ['web-7f', 'unknown'] }, data: 'to the label' }, 201);
  await ask('/v1/events', { to: { sessions: [getSession(byLabel)] }, data: 'to the id' }, 201);
  await byLabel.stream.until(isReceived('to the id'));
  await ask('/v1/disconnect', { user: 'a', sessions: ['web-7f'] });
  await ask('/v1/disconnect', { user: 'a', sessions: [getSession(byId)] });

  for (const { stream } of [byLabel, byId]) assert.equal((await stream.closing())?.code, 'revoked');
  assert.deepEqual(byLabel.stream.dataByType('message'), ['to the id']);
  assert.deepEqual(byId.stream.dataByType('message'), []);
  const again = await open({ user: 'a', session: 'web-7f' });
  const after = await client.ask('GET', '/v1/streams?user=a', { bearer: system.apiKey });
  const [item] = after.body['items'] as { session: string }[];
  assert.equal(item?.session, getSession(byLabel));
  again.stream.abort();
});

test('an extended stream keeps the label of its first ticket', async (t) => {
  const { client, ask, open } = await startDisconnects(t);
  const { stream, path } = await open({ user: 'a', session: 'first' });
  const fresh = await ask('/v1/tickets', { user: 'a', session: 'second' });
  const json = { streamToken: fresh['streamToken'] };
  const bearer = path.split('/').at(-1) ?? '';
  assert.equal((await client.ask('POST', '/stream/extend', { bearer, json })).status, 200);

  await ask('/v1/disconnect', { user: 'a', sessions: ['second'] });
  await ask('/events', { to: { users: ['a'] }, data: 'still open' }, 201);
  await stream.until(() => stream.dataByType('message').includes('still open') || undefined);
  await ask('/v1/disconnect', { user: 'a', sessions: ['first'] });

  assert.equal((await stream.closing())?.code, 'revoked');
});

test('a disconnect ends streams of a local account, but not its sessions', async (t) => {
  const { system, client, ask, reopen } = await startDisconnects(t);
  const login = await client.login('ada');
  const bearerStream = await client.listenAs(login.accessToken);
  const path = await client.streamPath('ada');
  const tokenStream = await client.openStream(path);
  await tokenStream.opening();

  await ask('/v1/disconnect', { user: system.userIds.ada });

  for (const stream of [bearerStream, tokenStream])
    assert.equal((await stream.closing())?.code, 'revoked');
  assert.equal(await reopen(path), 401);
  const { status } = await client.ask('GET', '/me', { bearer: login.accessToken });
  assert.equal(status, 200);
  const next = await client.listen('ada');
  next.abort();
});

test('a disconnect of the session of a local account ends the streams of that session', async (t) => {
  const { system, client, ask } = await startDisconnects(t);
  const logins = [await client.login('ada'), await client.login('ada')];
  const [first, second] = await Promise.all(
    logins.map(({ accessToken }) => client.listenAs(accessToken)),
  );
  assert.ok(first && second);
  const me = await client.ask('GET', '/me', { bearer: logins[0]?.accessToken ?? '' });

  await ask('/v1/disconnect', { user: system.userIds.ada, sessions: [me.body['sessionId']] });
  await ask('/events', { to: 'all', data: 'after' }, 201);

  assert.equal((await first.closing())?.code, 'revoked');
  await second.until(() => second.dataByType('message').at(-1));
  second.abort();
});

const now = 1_800_000_000_000;
const invalidRequests = [
  [{}, undefined],
  [{ user: 7 }, 'user'],
  [{ user: 'a', sessions: [] }, 'sessions'],
  [{ user: 'a', sessions: 'web' }, 'sessions'],
  [{ user: 'a', sessions: [1] }, 'sessions'],
  [{ user: 'a', sessions: ['x'.repeat(256)] }, 'sessions'],
  [{ user: 'a', sessions: Array.from({ length: 101 }, String) }, 'sessions'],
  [{ user: 'a', streams: ['not an id'] }, 'streams'],
  [{ user: 'a', streams: Array.from({ length: 101 }, () => 'a'.repeat(32)) }, 'streams'],
  [{ user: 'a', issuedBefore: -1 }, 'issuedBefore'],
  [{ user: 'a', issuedBefore: now + 60_001 }, 'issuedBefore'],
  [{ user: 'a', issuedBefore: now - 31 * 86_400_000 - 1 }, 'issuedBefore'],
  [{ user: 'a', issuedBefore: now / 1000 }, 'issuedBefore'],
  [{ user: 'a', issuedBefore: now + 0.5 }, 'issuedBefore'],
  [{ user: 'a', issuedBefore: null }, 'issuedBefore'],
  [{ user: 'a', issuedBefore: '1' }, 'issuedBefore'],
  [{ user: 'a', renew: 1 }, 'renew'],
  [{ user: 'a', reason: 'x' }, 'reason'],
] as const;

test('an invalid disconnect is refused, and the response names the field', async (t) => {
  const { ask } = await startDisconnects(t);

  for (const [json, field] of invalidRequests) {
    const { info } = await ask('/v1/disconnect', json, 400);
    assert.equal((info as { field?: string }).field, field, JSON.stringify(json));
  }
  const ids = Array.from({ length: 100 }, (_, index) => index.toString(16).padStart(32, '0'));
  await ask('/v1/disconnect', {
    user: 'a',
    sessions: ids,
    streams: ids,
    issuedBefore: now + 60_000,
  });
  await ask('/v1/disconnect', { user: 'a', issuedBefore: now - 31 * 86_400_000 });
});

test('the message about an invalid issuedBefore has the allowed range, and says when the value looks like seconds', async (t) => {
  const { ask } = await startDisconnects(t);
  const range = 'must be a time in epoch milliseconds, from 31 days ago to a minute in the future';
  const cases = [
    [now / 1000, `${range}; this value looks like seconds`],
    [0, `${range}; this value looks like seconds`],
    [1e11 - 1, `${range}; this value looks like seconds`],
    [1e11, range],
    [now + 60_001, range],
    [-1, range],
    ['1800000000', range],
  ] as const;

  for (const [issuedBefore, expected] of cases) {
    const { message } = await ask('/v1/disconnect', { user: 'a', issuedBefore }, 400);
    assert.ok(String(message).endsWith(expected), String(message));
    assert.match(String(message), /issuedBefore/);
  }
});

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  test(`${dialect}: tickets, extensions and disconnects take effect in every process`, {
    skip: await skipFor(dialect),
  }, async (t) => {
    const { apiKey: bearer, start } = await clusterFor(t, dialect);
    const time = { now: Date.now() };
    const clients = await Promise.all(
      [0, 1].map(async () => {
        const { port } = await start({}, { wallClock: () => time.now });
        const client = await H2Client.connect(`https://127.0.0.1:${port}`);
        t.after(() => client.destroy());
        return client;
      }),
    );
    const [one, two] = clients as [H2Client, H2Client];
    const ask = async (client: H2Client, path: string, json: unknown, status = 200) => {
      const answer = await client.ask('POST', path, { bearer, json });
      assert.equal(answer.status, status, answer.text);
      return answer.body;
    };
    const { streamToken } = await ask(one, '/v1/tickets', { user: 'a', endsIn: 60_000 });
    const stream = await two.openStream(`/stream/live/${streamToken}`);
    await stream.opening();

    const fresh = await ask(one, '/v1/tickets', { user: 'a' });
    const json = { streamToken: fresh['streamToken'] };
    const extended = await one.ask('POST', '/stream/extend', { bearer: String(streamToken), json });
    assert.deepEqual(extended.body, { endsAt: fresh['endsAt'] }, extended.text);
    await ask(one, '/events', { to: { users: ['a'] }, data: 'extended' }, 201);
    await stream.until(() => stream.dataByType('message').includes('extended') || undefined);
    await ask(one, '/v1/disconnect', { user: 'a' });
    await ask(one, '/events', { to: { users: ['a'] }, data: 'disconnected' }, 201);

    assert.equal((await stream.closing())?.code, 'revoked');
    assert.deepEqual(stream.dataByType('message'), ['extended']);
    assert.equal((await two.openStream(`/stream/live/${streamToken}`)).status, 401);
  });
}
