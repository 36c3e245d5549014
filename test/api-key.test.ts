import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import { recordedLog, recordSecret } from './support/recording/record.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

const json = { to: 'all', data: 'x', volatile: true };

test('an API key works from its creation until it is revoked', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const publish = (bearer: string) => client.ask('POST', '/events', { bearer, json });

  // `runAdmin` opens a separate database connection, as another process would.
  const { key, id } = await system.runAdmin(({ apiKeys }) =>
    apiKeys.create({ name: 'billing', scopes: ['publish'] }),
  );
  recordSecret(key);
  assert.equal((await publish(key)).status, 201);
  await system.runAdmin(({ apiKeys }) => apiKeys.revoke('billing'));
  const refused = await publish(key);

  assert.equal(refused.status, 401);
  assert.equal(refused.body['name'], 'invalid_token');
  assert.match(refused.headers['www-authenticate'] ?? '', /error="invalid_token"/);
  const findKey = async () => {
    const listed = await system.runAdmin(({ apiKeys }) => apiKeys.list());
    return listed.find((apiKey) => apiKey.id === id);
  };
  assert.ok((await findKey())?.revokedAt !== undefined);
  await until(async () => (await findKey())?.lastUsedAt !== undefined); // Herald writes it in the background.
  assert.equal((await publish(system.apiKey)).status, 201);
});

test('an API key is accepted only for its scopes, and never on routes for users', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const bearer = system.apiKey;

  for (const [method, path] of [
    ['GET', '/me'],
    ['POST', '/logout'],
    ['POST', '/stream/token'],
    ['GET', '/stream/live'],
    ['GET', '/anything'],
  ] as const) {
    const { status, body } = await client.ask(method, path, { bearer });
    assert.deepEqual([status, body['name']], [401, 'invalid_token'], path);
  }
  const asUser = await client.ask('POST', '/events', {
    bearer: await client.accessToken('ada'),
    json,
  });
  assert.deepEqual([asUser.status, asUser.body['name']], [401, 'invalid_token']);

  const config = loadConfig(system.env);
  await withDatabase(config, recordedLog, (db) =>
    db.execute(sql`update api_keys set scopes = ${'other'}`),
  );
  const withoutScope = await client.ask('POST', '/events', { bearer, json });
  assert.deepEqual([withoutScope.status, withoutScope.body['name']], [403, 'insufficient_scope']);
  assert.match(withoutScope.headers['www-authenticate'] ?? '', /scope="publish"/);
});
