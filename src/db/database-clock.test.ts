import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { testOnDialects } from '../../test/support/databases/dialects.js';
import { databaseFor } from '../../test/support/databases/test-database.js';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { silentLogger } from '../logging/logger.js';
import { sql } from './database.js';
import { DatabaseClock } from './database-clock.js';

const hour = 3_600_000;
const start = 1_767_225_600_000;
const differs = 'clock differs from the database, using the database time';
const agrees = 'clock agrees with the database again';

/** A machine and a database server with clocks that the test sets. */
class Clocks {
  localMs = start;
  databaseMs = start;
  monotonicMs = 1000;
  tripMs = 0;
  queries = 0;
  /** Called when the database has read its clock, before the result arrives. */
  onRead = () => {};
  readonly lines: Record<string, unknown>[] = [];

  elapse(ms: number): void {
    this.localMs += ms;
    this.databaseMs += ms;
    this.monotonicMs += ms;
  }

  /** Suspends the machine, which stops its monotonic clock. */
  suspend(ms: number): void {
    this.localMs += ms;
    this.databaseMs += ms;
  }

  async open(t: TestContext): Promise<DatabaseClock> {
    const clock = await DatabaseClock.open({
      db: { dialect: 'postgres', query: <Row>() => this.#query() as Promise<Row[]> },
      log: collectingLog(this.lines),
      wallClock: () => this.localMs,
      monotonicClock: () => this.monotonicMs,
    });
    t.after(() => clock.close());
    return clock;
  }

  /** Returns the logged phrases with their offsets. */
  get logged(): unknown[] {
    return this.lines.map(({ phrase, offsetMs }) => [phrase, offsetMs]);
  }

  async #query(): Promise<unknown[]> {
    this.queries += 1;
    this.elapse(this.tripMs / 2);
    const rows = [{ ms: this.databaseMs }];
    this.onRead();
    this.elapse(this.tripMs / 2);
    return rows;
  }
}

for (const sign of [1, -1]) {
  const direction = sign === 1 ? 'ahead' : 'behind';

  test(`a local clock that is 5 s ${direction} is used, and one that is further ${direction} is not`, async (t) => {
    const clocks = new Clocks();
    clocks.localMs += sign * 5000;
    const clock = await clocks.open(t);

    assert.deepEqual([clock.now(), clock.isLocalClockWrong], [clocks.localMs, false]);
    assert.equal(clock.offsetMs, sign * 5000);
    clocks.localMs += sign;
    assert.deepEqual([clock.now(), clock.isLocalClockWrong], [clocks.databaseMs, true]);
    clocks.elapse(20_000);
    assert.equal(clock.now(), clocks.databaseMs);
  });

  test(`a local clock that jumps ${direction} between two measurements is never used`, async (t) => {
    const clocks = new Clocks();
    const clock = await clocks.open(t);
    clocks.elapse(10_000);

    clocks.localMs += sign * hour;

    assert.equal(clock.now(), clocks.databaseMs);
    await clock.measure();
    assert.equal(clock.now(), clocks.databaseMs);
    assert.deepEqual(clocks.logged, [[differs, sign * hour]]);
  });
}

test('a clock that is wrong at the start is logged once, and so is its correction', async (t) => {
  const clocks = new Clocks();
  clocks.localMs += hour;
  const clock = await clocks.open(t);

  await clock.measure();
  assert.deepEqual(clocks.logged, [[differs, hour]]);
  clocks.elapse(30_000);
  clocks.localMs -= hour;
  assert.equal(clock.now(), clocks.localMs);
  await clock.measure();

  assert.deepEqual(clocks.logged, [
    [differs, hour],
    [agrees, 0],
  ]);
  assert.equal(clock.isLocalClockWrong, false);
});

test('now() starts a measurement when the local clock differs from the expected time', async (t) => {
  const clocks = new Clocks();
  const clock = await clocks.open(t);
  clocks.elapse(10_000);
  clocks.localMs -= hour;
  const before = clocks.queries;

  clock.now();
  clock.now();
  await clock.measure(); // Shares the measurement that the first call started.

  assert.equal(clocks.queries, before + 2, 'measured, and once more to make sure');
  clock.now();
  assert.equal(clocks.queries, before + 2);
});

test('after the clock of the database jumps, the new time is used from the next measurement on', async (t) => {
  const clocks = new Clocks();
  const clock = await clocks.open(t);

  clocks.databaseMs += hour;
  assert.equal(clock.now(), clocks.localMs);
  await clock.measure();

  assert.equal(clock.now(), clocks.databaseMs);
  assert.deepEqual(clocks.logged, [[differs, -hour]]);
});

test('after the machine was suspended, the local clock is used from the next measurement on, and nothing is logged', async (t) => {
  const clocks = new Clocks();
  const clock = await clocks.open(t);

  clocks.suspend(hour);
  clocks.elapse(1000);
  assert.equal(clock.now(), clocks.databaseMs - hour);
  await clock.measure();

  assert.equal(clock.now(), clocks.localMs);
  assert.deepEqual(clocks.logged, []);
});

test('a machine that is suspended during a measurement measures again', async (t) => {
  const clocks = new Clocks();
  const clock = await clocks.open(t);
  clocks.onRead = () => {
    clocks.onRead = () => {};
    clocks.suspend(hour);
  };

  await clock.measure();

  assert.equal(clock.now(), clocks.localMs);
  assert.deepEqual(clocks.logged, []);
});

test('a measurement counts for the middle of its round trip; one of over 2 s is discarded', async (t) => {
  const clocks = new Clocks();
  const clock = await clocks.open(t);
  clocks.databaseMs += 3000;

  clocks.tripMs = 2001;
  await clock.measure();
  assert.equal(clock.offsetMs, 0);
  clocks.tripMs = 2000;
  await clock.measure();
  assert.equal(clock.offsetMs, -3000);
});

test('the first measurement counts even if it is slow', async (t) => {
  const clocks = new Clocks();
  clocks.databaseMs += hour;
  clocks.tripMs = 9000;

  const clock = await clocks.open(t);
  const time = clocks.databaseMs; // Read before now(), which measures again.

  assert.equal(clock.now(), time);
});

test('a failed measurement keeps the time, is logged once per outage, and is retried by now()', async (t) => {
  const clocks = new Clocks();
  const clock = await clocks.open(t);
  const fail = () => {
    throw new Error('connection lost');
  };
  clocks.onRead = fail;

  for (let count = 0; count < 2; count += 1) await clock.measure();
  assert.equal(clock.now(), clocks.localMs);
  clocks.onRead = () => {};
  await clock.measure();
  clocks.onRead = fail;
  await clock.measure();
  const failed = 'database time could not be read, retrying';
  assert.deepEqual(clocks.logged, [
    [failed, undefined],
    [failed, undefined],
  ]);

  clocks.localMs += hour;
  const before = clocks.queries;
  clocks.elapse(999);
  assert.equal(clock.now(), clocks.databaseMs);
  assert.equal(clocks.queries, before, 'at most one measurement a second');
  clocks.onRead = () => {};
  clocks.elapse(1);
  clock.now();
  await clock.measure();
  assert.deepEqual(clocks.logged.at(-1), [differs, hour]);
});

test('the clock does not open when its first measurement fails', async (t) => {
  const clocks = new Clocks();
  clocks.onRead = () => {
    throw new Error('connection lost');
  };

  await assert.rejects(clocks.open(t), /connection lost/);
});

test('a closed clock logs nothing', async (t) => {
  const clocks = new Clocks();
  const clock = await clocks.open(t);

  clock.close();
  clock.close();
  clocks.localMs += hour;
  await clock.measure();

  assert.deepEqual(clocks.logged, []);
});

const testOnEach = await testOnDialects('the clock of the database');

const setTimeZone = {
  postgres: sql`set local time zone 'Asia/Tokyo'`,
  mariadb: sql`set time_zone = '+09:00'`,
  mysql: sql`set time_zone = '+09:00'`,
};

testOnEach('the time of the database server does not depend on a time zone', async (t) => {
  const db = await databaseFor(t);
  const { dialect } = db;
  if (dialect === 'sqlite') return; // The embedded database has no clock.
  await db.transaction(async (tx) => {
    await tx.execute(setTimeZone[dialect]);

    const clock = await DatabaseClock.open({ db: tx, log: silentLogger });
    clock.close();

    assert.equal(clock.isLocalClockWrong, false, `${clock.offsetMs}`);
  });
});

testOnEach(
  'the embedded database uses a local clock that is weeks ahead, and no other database does',
  async (t) => {
    const db = await databaseFor(t);
    const wallClock = () => Date.now() + 40 * 24 * hour;
    const lines: Record<string, unknown>[] = [];

    const clock = await DatabaseClock.open({ db, log: collectingLog(lines), wallClock });
    t.after(() => clock.close());
    await clock.measure();

    const isEmbedded = db.dialect === 'sqlite';
    assert.equal(clock.isLocalClockWrong, !isEmbedded);
    assert.equal(clock.offsetMs > 39 * 24 * hour, !isEmbedded);
    assert.equal(clock.now() > Date.now() + hour, isEmbedded);
    assert.deepEqual(
      lines.map(({ phrase }) => phrase),
      isEmbedded ? [] : [differs],
    );
  },
);
