import assert from 'node:assert/strict';
import { serverDialects, testOnDialects } from '../../test/support/databases/dialects.js';
import { databaseFor } from '../../test/support/databases/test-database.js';
import { inFlightMax } from './concurrency-limiter.js';
import { sql } from './database.js';

const test = await testOnDialects('background work');

const select = sql`select 1 as one`;

test(
  'background work runs while requests are refused because too many statements are waiting',
  async (t) => {
    const db = await databaseFor(t);
    const { background } = db;
    assert.ok(background !== undefined);
    const waiting = Array.from({ length: inFlightMax.requests }, () => db.query(select));
    const refusals = [db.query(select), db.execute(select), db.transaction(async () => {})];

    const results = Promise.all([
      background.query(select),
      background.execute(sql`delete from processes`),
      background.transaction((tx) => tx.query(select)),
    ]);

    for (const refusal of refusals) await assert.rejects(refusal, { name: 'service_unavailable' });
    assert.deepEqual(await results, [[{ one: 1 }], 0, [{ one: 1 }]]);
    await Promise.all(waiting);
  },
  serverDialects,
);
