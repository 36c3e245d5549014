import assert from 'node:assert/strict';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { databaseFor } from '../../test/support/databases/embedded.js';
import { sql } from '../db/database.js';
import { type Logger, silentLogger } from '../logging/logger.js';
import { ClusterSync } from './cluster-sync.js';
import { Registry } from './registry.js';
import { UserCount } from './user-count.js';

const test = await testOnDialects('cluster sync');

test('a process deregisters on close, and logs a warning if its row cannot be deleted', async (t) => {
  const db = await databaseFor(t);
  const wallClock = Date.now;
  const registry = new Registry({
    limits: { streamsMax: 10, perUserMax: 10, perIpMax: 10 },
    monotonicClock: wallClock,
    random: Math.random,
  });
  const warnings: unknown[] = [];
  const log: Logger = {
    ...silentLogger,
    warn(_, phrase) {
      if (phrase !== 'user counts could not be exchanged') warnings.push(phrase); // From a heartbeat.
    },
  };
  const count = async () => (await db.query(sql`select id from processes`)).length;
  const one = await ClusterSync.start({
    db,
    registry,
    userCount: new UserCount(registry),
    log,
    wallClock,
  });
  const two = await ClusterSync.start({
    db,
    registry,
    userCount: new UserCount(registry),
    log,
    wallClock,
  });
  assert.equal(await count(), 2);

  await one.close();
  assert.equal(await count(), 1);
  assert.deepEqual(warnings, []);
  await db.execute(sql`alter table processes rename to elsewhere`);
  await two.close();
  await db.execute(sql`alter table elsewhere rename to processes`);

  assert.deepEqual(warnings, ['process could not be deregistered']);
});
