import assert from 'node:assert/strict';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { databaseFor } from '../../test/support/databases/embedded.js';
import { sql } from '../db/database.js';
import { type Log, silentLog } from '../logging/log.js';
import { Neighbours } from './cluster-sync.js';
import { Registry } from './registry.js';
import { StreamTokens } from './stream-token.js';
import { UserCount } from './user-count.js';

const test = await testOnDialects('neighbours');

test('a process takes itself off the list; where it cannot, it says so and closes', async (t) => {
  const db = await databaseFor(t);
  const clock = Date.now;
  const registry = new Registry({
    limits: { streamsMax: 10, perUserMax: 10, perIpMax: 10 },
    uptime: clock,
  });
  const times = { lifeMs: 1000, resumeWindowMs: 1000, mode: 'resume' } as const;
  const tokens = new StreamTokens({ db, clock, ...times });
  const warnings: unknown[] = [];
  const log: Log = {
    ...silentLog,
    warn(_, phrase) {
      if (phrase !== 'other processes cannot be heard') warnings.push(phrase); // A beat between.
    },
  };
  const count = async () => (await db.query(sql`select id from processes`)).length;
  const one = await Neighbours.start({
    db,
    registry,
    userCount: new UserCount(registry),
    tokens,
    log,
    clock,
  });
  const two = await Neighbours.start({
    db,
    registry,
    userCount: new UserCount(registry),
    tokens,
    log,
    clock,
  });
  assert.equal(await count(), 2);

  await one.close();
  assert.equal(await count(), 1);
  assert.deepEqual(warnings, []);
  await db.execute(sql`alter table processes rename to elsewhere`);
  await two.close();
  await db.execute(sql`alter table elsewhere rename to processes`);

  assert.deepEqual(warnings, ['other processes could not be told of the end of this one']);
});
