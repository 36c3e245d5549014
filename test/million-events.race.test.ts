import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { type Database, type Sql, sql } from '../src/db/database.js';
import { SqlLogStore } from '../src/event-log/sql/sql-log-store.js';
import { testOnDialects } from './support/databases/dialects.js';
import { analyze, findFullScans, normalizeText } from './support/databases/plans.js';
import { databaseFor } from './support/databases/test-database.js';
import { rawSql } from './support/databases/test-server.js';
import { races } from './support/races.js';
import { withStatementHook } from './support/recording/statement-hooks.js';
import { toReader } from './support/to-reader.js';

const test = await testOnDialects('topics in a long event log');

/** A million events for `npm run races`. Filling the tables takes half a minute for each dialect. */
const eventCount = races.runs >= 10_000 ? 1_000_000 : 100_000;
const rowsPerInsert = 50_000;
const digits = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((digit) => `select ${digit} as i`);

/** Selects the numbers from `after` + 1 on, as many as are inserted at once, as `n`. */
function numbersAfter(after: number): string {
  const [all, five] = [digits, digits.slice(0, 5)].map((each) => `(${each.join(' union all ')})`);
  const number = `a.i + 10 * b.i + 100 * c.i + 1000 * d.i + 10000 * e.i + 1 + ${after}`;
  return `(select ${number} as n from ${all} a cross join ${all} b cross join ${all} c
    cross join ${all} d cross join ${five} e) numbers`;
}

/**
 * Fills the tables: every event is for one of 10,000 topics (`busy 0` and so on), or each fourth for one of
 * 10,000 users, and the first fifth also for one of 1000 topics (`idle 0` and so on). As many topics were trimmed
 * as there are events.
 */
async function fillLog(db: Database): Promise<void> {
  for (let after = 0; after < eventCount; after += rowsPerInsert) {
    const numbers = numbersAfter(after);
    const insert = (into: string, columns: string, where = '1 = 1') =>
      db.execute(rawSql(`insert into ${into} select ${columns} from ${numbers} where ${where}`));
    await insert('events (seq, type, data, bytes, created_at)', `n, 'note', 'some data', 137, 0`);
    const audiences = 'event_audiences (audience, seq)';
    await insert(audiences, `concat('t:busy', (n * 1009) % 10000), n`, 'n % 4 <> 0');
    await insert(audiences, `concat('u:', (n * 2003) % 10000), n`, 'n % 4 = 0');
    await insert(audiences, `concat('t:idle', n % 1000), n`, `n <= ${eventCount / 5}`);
    await insert('trimmed_topics (topic, seq)', `concat('trimmed', n), n`);
    await insert('trimmed_audiences (bucket, seq)', 'n, 0');
  }
  await db.execute(
    sql`insert into log_head (id, epoch, seq, trimmed_seq, events, bytes)
      values (1, 'e1', ${eventCount}, 0, ${eventCount}, 0)`,
  );
  await analyze(db, [
    'events',
    'event_audiences',
    'trimmed_topics',
    'trimmed_audiences',
    'log_head',
  ]);
}

const fixed = ['all', 'u:4', 's:x'];
const topics = (prefix: string, count: number, since = (_: number) => 0) =>
  Object.fromEntries(
    Array.from({ length: count }, (_, index): [string, number] => [
      `${prefix}${index}`,
      since(index),
    ]),
  );
const readers = {
  'three audiences': toReader(fixed),
  '16 topics': toReader(fixed, topics('busy', 16)),
  '100 topics': toReader(fixed, topics('busy', 100)),
  '1000 topics': toReader(fixed, topics('busy', 1000)),
  '1100 topics without events': toReader(fixed, topics('none', 1100)),
  '1000 topics with old events only': toReader(fixed, topics('idle', 1000)),
  '1000 topics, each since another position': toReader(
    fixed,
    topics('busy', 1000, (index) => Math.floor((index * eventCount) / 1000)),
  ),
};

test('a page of topics, and the loss of one, are found by indexes in at most five statements', async (t: TestContext) => {
  const db = await databaseFor(t);
  await fillLog(db);
  const statements: Sql[] = [];
  const store = await SqlLogStore.open(
    withStatementHook(db, (statement) => statements.push(statement)),
    { wallClock: () => 0, newEpoch: 'x' },
  );
  const found: string[] = [];
  const explain = async (reader: string, after: number) => {
    for (const statement of statements) {
      for (const scan of await findFullScans(db, statement))
        found.push(`${reader} after ${after}: ${scan}: ${normalizeText(statement).slice(0, 200)}`);
    }
  };

  for (const [name, reader] of Object.entries(readers)) {
    for (const after of [0, eventCount / 2, eventCount - 10_000, eventCount - 100]) {
      statements.length = 0;
      const limits = { eventsMax: 256, bytesMax: 65_536 };
      const page = await store.read(reader, { after, upTo: eventCount }, limits);
      assert.ok(page.events.length > 0 || !page.hasMore, `${name} after ${after}: no progress`);
      assert.ok(statements.length <= 5, `${name} after ${after}: ${statements.length} statements`);
      await explain(name, after);
      statements.length = 0;
      assert.equal(await store.findLastTrimmedSeq(reader, after), 0);
      if (eventCount === 1_000_000) await explain(name, after);
    }
  }

  assert.deepEqual(found, []);
});
