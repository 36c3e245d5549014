import assert from 'node:assert/strict';
import { test } from 'node:test';
import { migrationsByDialect } from '../src/db/migrations/list.js';
import { getLatestVersion } from '../src/db/migrations/migration.js';
import { H2Client } from './support/clients/h2-client.js';
import { skipFor } from './support/databases/new-database.js';
import { clusterFor } from './support/servers/cluster.js';
import type { LogLine } from './support/servers/launch.js';
import { copySourceWithExtraMigration } from './support/servers/newer-source.js';
import { runSource, tempFolder } from './support/servers/process.js';

/** Returns the warnings about the schema in the log lines of a process. */
const findSchemaWarnings = (lines: readonly LogLine[]) =>
  lines
    .filter(({ level, msg }) => level === 'warn' && String(msg).startsWith('database schema'))
    .map(({ schemaVersion, knownVersion }) => ({ schemaVersion, knownVersion }));

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const skip = await skipFor(dialect);

  test(`${dialect}: this version and a version with one more migration share a database`, {
    skip,
  }, async (t) => {
    const cluster = await clusterFor(t, dialect);
    const newer = copySourceWithExtraMigration(t);
    const known = getLatestVersion(migrationsByDialect[dialect]);
    const cwd = tempFolder(t);
    const command = (file: string, args: readonly string[], root?: string) =>
      runSource(`commands/${file}.ts`, args, {
        ...(root !== undefined && { root }),
        cwd,
        env: cluster.env,
      });
    const connect = async (url: string) => {
      const client = await H2Client.connect(url);
      t.after(() => client.destroy());
      return client;
    };
    const publish = async (client: H2Client, data: unknown) => {
      const json = { to: 'all', data };
      const { status, body, text } = await client.ask('POST', '/events', {
        bearer: cluster.apiKey,
        json,
      });
      assert.equal(status, 201, text);
      return String(body['id']);
    };
    const running = await connect((await cluster.launch()).url);

    await t.test('a process that runs while the newer version migrates keeps serving', async () => {
      const stream = await running.listen('ada');
      const published: string[] = [];
      let isMigrated = false;

      const migrating = command('sync', [], newer).finally(() => {
        isMigrated = true;
      });
      while (!isMigrated) {
        published.push(await publish(running, 'during'));
        const { accessToken: bearer } = await running.login('cyd');
        assert.equal((await running.ask('POST', '/logout', { bearer })).status, 204);
      }
      const { code, out, err } = await migrating;
      published.push(await publish(running, 'after'));
      await stream.until(() => stream.ids.length >= published.length || undefined);

      assert.equal(code, 0, err);
      assert.match(out, new RegExp(`^Applied {2}${known + 1} expand\n`));
      assert.deepEqual(stream.ids, published);
      stream.abort();
    });

    const [olderLines, newerLines]: [LogLine[], LogLine[]] = [[], []];
    const older = await connect(
      (await cluster.launch({}, { onLine: (line) => olderLines.push(line) })).url,
    );
    const ahead = await connect(
      (await cluster.launch({}, { root: newer, onLine: (line) => newerLines.push(line) })).url,
    );

    await t.test('a process of this version starts, with one warning', async () => {
      assert.deepEqual(findSchemaWarnings(olderLines), [
        { schemaVersion: known + 1, knownVersion: known },
      ]);
      assert.deepEqual(findSchemaWarnings(newerLines), []);
    });

    await t.test('commands of this version work and report the newer schema', async () => {
      const status = await command('sync', ['--status']);
      const again = await command('sync', []);
      const user = await command('user', ['disable', 'cyd']);

      for (const { code, err } of [status, again, user]) assert.equal(code, 0, err);
      const notice = `A newer Herald migrated the schema; this program knows up to ${known} and can use it\n`;
      assert.ok(status.out.endsWith(notice), status.out);
      assert.match(again.out, new RegExp(`at version ${known + 1}; nothing was pending\n`));
      assert.ok(again.out.endsWith(notice), again.out);
    });

    const processes = [running, older, ahead];

    await t.test(
      'events published in any process reach the streams of all processes, in the same order',
      async () => {
        const streams = await Promise.all(processes.map((client) => client.listen('ada')));

        const published = await Promise.all(
          processes.flatMap((client) =>
            Array.from({ length: 8 }, (_, index) => publish(client, index)),
          ),
        );
        for (const stream of streams) {
          await stream.until(() => stream.ids.length >= published.length || undefined);
        }

        const [first] = streams;
        assert.deepEqual(first?.ids.toSorted(), published.toSorted());
        for (const stream of streams) assert.deepEqual(stream.ids, first?.ids);
        for (const stream of streams) stream.abort();
      },
    );

    for (const [name, from, to] of [
      ['a process of this version ends streams in a newer process', older, ahead],
      ['a newer process ends streams in a process of this version', ahead, older],
      [
        'a newer process ends streams in a process that started before the migration',
        ahead,
        running,
      ],
    ] as const) {
      await t.test(`a logout in ${name}`, async () => {
        const { accessToken: bearer } = await from.login('bob');
        const stream = await to.listenAs(bearer);

        const { status } = await from.ask('POST', '/logout', { bearer });

        assert.equal(status, 204);
        assert.equal((await stream.closing())?.reconnect, false);
        assert.equal((await to.ask('GET', '/me', { bearer })).status, 401);
      });
    }

    for (const [name, from, to] of [
      ['a process of this version resumes in a newer process', older, ahead],
      ['a newer process resumes in a process of this version', ahead, older],
    ] as const) {
      await t.test(`a stream of ${name}`, async () => {
        const path = await from.streamPath('ada');
        const before = await from.openStream(path);
        const seen = await publish(from, 'seen');
        await before.until(() => before.ids.includes(seen) || undefined);
        before.abort();
        await before.ended();
        const missed = await publish(to, 'missed');

        const after = await to.openStream(path, { 'last-event-id': seen });
        await after.until(() => after.lastId);

        assert.equal((await after.opening()).resumed, true);
        assert.equal(after.ids[0], missed);
        after.abort();
      });
    }

    await t.test('refresh tokens of each version are accepted by the other version', async () => {
      for (const [from, to] of [
        [older, ahead],
        [ahead, older],
      ] as const) {
        const { refreshToken } = await from.login('bob');
        const { status, text } = await to.ask('POST', '/token', { json: { token: refreshToken } });
        assert.equal(status, 200, text);
      }
    });
  });
}
