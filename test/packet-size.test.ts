import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { migrate } from '../src/db/migrations/migrate.js';
import { openDatabase } from '../src/db/open.js';
import { EventLog } from '../src/event-log/event-log.js';
import { SqlLogStore } from '../src/event-log/sql/sql-log-store.js';
import { silentLogger } from '../src/logging/logger.js';
import { createDedicatedServer } from './support/databases/dedicated-server.js';
import { unlimitedRetention } from './support/unlimited-retention.js';
import { until } from './support/until.js';

const kib = 1024;

/** Opens an event log on a server with a `max_allowed_packet` of 1 MiB. */
async function openSmallPacketLog(t: TestContext, dialect: 'mariadb' | 'mysql') {
  const server = await createDedicatedServer(dialect, { args: ['--max-allowed-packet=1M'] });
  if (typeof server === 'string') return server;
  const closers: (() => Promise<unknown>)[] = [() => server.remove()];
  t.after(async () => {
    for (const close of closers.reverse()) await close();
  });
  await server.start();
  await migrate(server.options);
  const { database } = server.options;
  await server.administer("create user 'plain'@'%' identified by 'plain'");
  await server.administer(`grant select, insert, update, delete on ${database}.* to 'plain'@'%'`);
  const account = { username: 'plain', password: 'plain' }; // `read_only` does not apply to root.
  const db = await openDatabase({ ...server.options, ...account });
  const openedAt = performance.now();
  closers.push(() => db.close());
  const wallClock = Date.now;
  const store = await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  const limits = unlimitedRetention;
  const eventLog = await EventLog.open({ store, log: silentLogger, wallClock, limits });
  closers.push(() => eventLog.close());
  /** Appends events with this data, and returns the status that the publisher gets. */
  const append = async (...data: readonly string[]) => {
    const events = data.map((text) => ({
      ...{ audiences: ['all'], type: undefined, data: text, expiresAt: undefined },
    }));
    return eventLog.append({ events, idempotency: undefined }).then(
      () => 201,
      ({ status }) => status,
    );
  };
  /** Whether an error of the database server replaces the pool, which happens at most once a second. */
  const isPoolReplaceable = () => performance.now() - openedAt > 1000;
  return { server, append, isPoolReplaceable };
}

for (const dialect of ['mariadb', 'mysql'] as const) {
  test(`${dialect}: an event larger than max_allowed_packet is refused until a new pool reads a higher value`, async (t) => {
    const opened = await openSmallPacketLog(t, dialect);
    if (typeof opened === 'string') return t.skip(opened);
    const { server, append, isPoolReplaceable } = opened;
    const tooLarge = "'".repeat(512 * kib); // Escaping doubles it.

    const statuses = await Promise.all([
      append('first'),
      append('small'),
      append(tooLarge),
      append(...Array(30).fill('x'.repeat(64 * kib))),
      append(...Array(200).fill("'".repeat(8 * kib))),
      append('x'.repeat(512 * kib)),
      ...Array.from({ length: 50 }, () => append('x'.repeat(40 * kib))),
    ]);

    assert.deepEqual(statuses, [201, 201, 413, ...Array(53).fill(201)]);
    await server.administer('set global max_allowed_packet = 67108864');
    assert.equal(await append(tooLarge), 413); // The open connections keep the lower value.
    await server.administer('set global read_only = 1');
    await until(async () => {
      const replaces = isPoolReplaceable();
      return (await append('x')) === 503 && replaces;
    });
    await server.administer('set global read_only = 0');
    await until(async () => (await append(tooLarge)) === 201);
  });
}
