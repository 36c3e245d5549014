import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { WarningAggregator } from './warning-aggregator.js';

function createAggregator() {
  const time = { now: 5000 };
  const lines: Record<string, unknown>[] = [];
  const aggregator = new WarningAggregator({
    log: collectingLog(lines),
    monotonicClock: () => time.now,
  });
  const warn = (subject: string, extraFields: object = {}, kind = 'login') =>
    aggregator.warn({
      kind,
      subject,
      fields: { reason: kind, from: subject, ...extraFields },
      phrase: 'refused',
    });
  /** Returns the lines logged since the last call, without level and phrase. */
  const takeLoggedFields = () =>
    lines.splice(0).map(({ level: _, phrase: __, ...fields }) => fields);
  return { aggregator, time, lines, warn, takeLoggedFields };
}

test('the first warning is logged at once and in full, its repeats once a minute in one line', () => {
  const { aggregator, time, lines, warn, takeLoggedFields } = createAggregator();

  for (let id = 1; id <= 1000; id += 1) {
    warn('a', { id });
    aggregator.report();
  }
  const first = { level: 'warn', phrase: 'refused', reason: 'login', from: 'a', id: 1 };
  assert.deepEqual(lines.splice(0), [first]);

  time.now += 59_999;
  aggregator.report();
  assert.deepEqual(takeLoggedFields(), []);
  time.now += 1;
  aggregator.report();
  aggregator.report();
  assert.deepEqual(takeLoggedFields(), [{ reason: 'login', from: 'a', repeated: 999 }]);

  warn('a', { id: 1001 });
  time.now += 60_000;
  aggregator.report();
  assert.deepEqual(takeLoggedFields(), [{ reason: 'login', from: 'a', id: 1001, repeated: 1 }]);
});

test('after a minute without repeats the next warning is logged at once', () => {
  const { aggregator, time, warn, takeLoggedFields } = createAggregator();
  warn('a', { id: 1 });
  time.now += 60_000;
  aggregator.report();

  warn('a', { id: 2 });

  assert.deepEqual(
    takeLoggedFields().map(({ id }) => id),
    [1, 2],
  );
});

test('warnings are aggregated by kind and subject', () => {
  const { aggregator, time, warn, takeLoggedFields } = createAggregator();

  for (const subject of ['a', 'b']) for (const kind of ['login', 'token']) warn(subject, {}, kind);
  assert.equal(takeLoggedFields().length, 4);

  for (const subject of ['a', 'b', 'b']) warn(subject);
  time.now += 60_000;
  aggregator.report();
  assert.deepEqual(takeLoggedFields(), [
    { reason: 'login', from: 'a', repeated: 1 },
    { reason: 'login', from: 'b', repeated: 2 },
  ]);
});

test('once there are a hundred pairs of kind and subject, warnings of new subjects are aggregated by kind alone', () => {
  const { aggregator, time, warn, takeLoggedFields } = createAggregator();
  const flood = () => {
    for (let subject = 0; subject < 1000; subject += 1) {
      for (const kind of ['login', 'token']) warn(String(subject), {}, kind);
    }
  };

  flood();
  assert.equal(takeLoggedFields().length, 102);
  flood();
  assert.deepEqual(takeLoggedFields(), []);

  time.now += 60_000;
  aggregator.report();
  const lines = takeLoggedFields();
  assert.equal(lines.length, 102);
  // 50 subjects of each kind have an aggregate of their own. The other 950 share one, whose first
  // warning was logged in full.
  assert.deepEqual(lines.slice(-2), [
    { reason: 'login', repeated: 949 + 950 },
    { reason: 'token', repeated: 949 + 950 },
  ]);

  time.now += 60_000;
  aggregator.report();
  warn('new');
  assert.deepEqual(takeLoggedFields(), [{ reason: 'login', from: 'new' }]);
});

test('flush logs the summaries of repeats that report has not logged yet', () => {
  const { aggregator, warn, takeLoggedFields } = createAggregator();
  for (let id = 1; id <= 3; id += 1) warn('a', { id });
  warn('b');
  takeLoggedFields();

  aggregator.flush();
  aggregator.flush();

  assert.deepEqual(takeLoggedFields(), [{ reason: 'login', from: 'a', repeated: 2 }]);
});
