import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { migrate } from '../src/db/migrations/migrate.js';
import { databaseEnv, findServer, type TestServer } from './support/databases/test-server.js';
import { type Env, getPassword } from './support/servers/seed.js';
import { ServerProcess } from './support/servers/server-process.js';

const postgres = await findServer('postgres');

/** Migrates a new database and returns its settings. The database is dropped after the test. */
async function migrateNewDatabase(t: TestContext, { options, drop }: TestServer): Promise<Env> {
  t.after(drop);
  await migrate(options);
  return databaseEnv(options);
}

test('sqlite: a server starts, logs a user in, publishes, resumes streams and stops', (t) =>
  assertWorks(t, {}));

test('postgres: a server starts, logs a user in, publishes, resumes streams and stops', {
  skip: typeof postgres === 'string' ? postgres : false,
}, async (t) => {
  if (typeof postgres !== 'string') await assertWorks(t, await migrateNewDatabase(t, postgres));
});

async function assertWorks(t: TestContext, env: Env): Promise<void> {
  // Start.
  const server = await ServerProcess.start(t, { env });
  const client = await server.connect();
  assert.equal(client.session.alpnProtocol, 'h2');
  assert.equal((await client.ask('GET', '/health/ready')).status, 200);

  // Log in and refresh the tokens.
  const wrongLogin = { username: 'ada', password: getPassword('bob') };
  assert.equal((await client.ask('POST', '/login', { json: wrongLogin })).status, 401);
  const { accessToken, refreshToken } = await client.login('ada');
  const me = await client.ask('GET', '/me', { bearer: accessToken });
  assert.equal(me.body['firstName'], 'ada', me.text);
  const refreshed = await client.ask('POST', '/token', { json: { token: refreshToken } });
  assert.equal(refreshed.status, 200, refreshed.text);

  // Stream and publish.
  const path = await client.streamPath('ada');
  const stream = await client.openStream(path);
  await stream.opening();
  const publish = async (data: string): Promise<string> => {
    const json = { to: 'all', type: 'greeting', data };
    const backend = await server.connect();
    const answer = await backend.ask('POST', '/events', { bearer: server.apiKey, json });
    assert.equal(answer.status, 201, answer.text);
    return String(answer.body['id']);
  };
  assert.equal((await client.ask('POST', '/events', { json: { to: 'all' } })).status, 401);
  const first = await publish('first');
  const received = await stream.event('greeting');
  assert.deepEqual([received.id, received.data], [first, 'first']);

  // Resume.
  stream.abort();
  await stream.ended();
  await publish('second');
  const resumed = await client.openStream(path, { 'last-event-id': first });
  assert.equal((await resumed.opening()).resumed, true);
  await publish('third');
  await resumed.until(() => resumed.dataByType('greeting').at(1));
  assert.deepEqual(resumed.dataByType('greeting'), ['second', 'third']);

  // Stop, start again, resume.
  const exited = server.end('SIGTERM');
  assert.equal((await resumed.closing())?.reconnect, true);
  assert.equal(await exited, 0);
  await server.startOnSamePort();
  await publish('fourth');
  const reopened = await (await server.connect()).openStream(path, { 'last-event-id': first });
  assert.equal((await reopened.opening()).resumed, true);
  await reopened.until(() => reopened.dataByType('greeting').at(2));
  assert.deepEqual(reopened.dataByType('greeting'), ['second', 'third', 'fourth']);

  assert.equal(await server.end('SIGTERM'), 0);
}
