import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { App } from '../src/app.js';
import { loadConfig } from '../src/config/config.js';
import type { Dialect } from '../src/db/database.js';
import { migrationsByDialect } from '../src/db/migrations/list.js';
import { getLatestVersion } from '../src/db/migrations/migration.js';
import type { DatabaseOptions } from '../src/db/options.js';
import { H2Client } from './support/clients/h2-client.js';
import { allDialects } from './support/databases/dialects.js';
import { newDatabase, skipFor } from './support/databases/new-database.js';
import { release010, restoreRelease } from './support/databases/release.js';
import { databaseEnv } from './support/databases/test-server.js';
import { recordedLog } from './support/recording/record.js';
import { runSource } from './support/servers/process.js';
import { prepare } from './support/servers/seed.js';

/** Creates a list of functions that are called after the test, the last one first. */
function createClosers(t: TestContext): (() => unknown)[] {
  const closers: (() => unknown)[] = [];
  t.after(async () => {
    for (const close of closers.reverse()) await close();
  });
  return closers;
}

/** Creates a database as 0.1.0 left it; returns a folder and the settings that open the database. */
async function restoreStoppedRelease(closers: (() => unknown)[], dialect: Dialect) {
  const { folder, env } = await prepare({ PORT: '0' });
  closers.push(() => rmSync(folder, { recursive: true, force: true }));
  for (const file of ['herald.db', 'herald.db-wal']) rmSync(join(folder, file), { force: true });
  const { options, drop } = await createDatabase(folder, dialect);
  closers.push(drop);
  await restoreRelease(release010, options);
  const databaseSettings = options.dialect === 'sqlite' ? {} : databaseEnv(options);
  const ACCESS_TOKEN_SECRET = release010.accessTokenSecret;
  return { folder, env: { ...env, ...databaseSettings, ACCESS_TOKEN_SECRET } };
}

async function createDatabase(
  folder: string,
  dialect: Dialect,
): Promise<{ options: DatabaseOptions; drop: () => Promise<void> }> {
  if (dialect !== 'sqlite') return newDatabase(dialect);
  const options = { dialect, file: join(folder, 'herald.db'), log: recordedLog };
  return { options, drop: async () => {} }; // The file is removed with its folder.
}

for (const dialect of allDialects) {
  test(`${dialect}: clients of 0.1.0 keep working after a stop, a migration and a start`, {
    skip: await skipFor(dialect),
  }, async (t) => {
    const closers = createClosers(t);
    const { folder, env } = await restoreStoppedRelease(closers, dialect);

    const { code, out, err } = await runSource('commands/sync.ts', [], { cwd: folder, env });
    assert.equal(code, 0, err);
    const latest = getLatestVersion(migrationsByDialect[dialect]);
    assert.match(out, new RegExp(`^The schema is at version ${latest}\\b`, 'm'));
    const app = await App.open({ config: loadConfig(env), log: recordedLog });
    closers.push(() => app.close());
    const client = await H2Client.connect(`https://127.0.0.1:${app.port}`);
    closers.push(() => client.destroy());
    const { refreshToken, apiKey, streamPath, unopenedPath, seen, missed } = release010;

    let bearer = '';
    await t.test('a refresh token is redeemed', async () => {
      const json = { token: refreshToken };
      const { status, body, text } = await client.ask('POST', '/token', { json });
      assert.equal(status, 200, text);
      bearer = String(body['accessToken']);
      assert.equal((await client.ask('GET', '/me', { bearer })).body['username'], 'ada');
    });

    const stream = await client.openStream(streamPath, { 'last-event-id': seen });

    await t.test('a stream token resumes after the Last-Event-ID', async () => {
      assert.equal((await stream.opening()).resumed, true);
      await stream.until(() => stream.ids.length >= missed.length || undefined);
      assert.deepEqual(stream.ids, missed);
    });

    await t.test('a stream token that was not opened yet opens', async () => {
      const unopened = await client.openStream(unopenedPath);
      assert.equal(await unopened.outcome(), 'open');
      unopened.abort();
    });

    await t.test('an API key publishes the next event', async () => {
      const json = { to: 'all', data: 'after the upgrade' };
      const { status, body, text } = await client.ask('POST', '/events', { bearer: apiKey, json });
      assert.equal(status, 201, text);
      await stream.until(() => stream.ids.length > missed.length || undefined);
      assert.deepEqual(stream.ids, [...missed, body['id']]);
    });

    await t.test('a password logs in', async () => {
      assert.notEqual((await client.login('cyd')).accessToken, '');
    });

    await t.test('a logout everywhere ends the stream of another session', async () => {
      const json = { scope: 'all' };
      assert.equal((await client.ask('POST', '/logout', { bearer, json })).status, 204);
      assert.equal((await stream.closing())?.reconnect, false);
    });
  });
}
