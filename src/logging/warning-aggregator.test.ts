import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { Repeats } from './warning-aggregator.js';

function repeatsOf() {
  const time = { now: 5000 };
  const lines: Record<string, unknown>[] = [];
  const repeats = new Repeats({ log: collectingLog(lines), clock: () => time.now });
  const warn = (of: string, more: object = {}, kind = 'login') =>
    repeats.warn({ kind, of, fields: { reason: kind, from: of, ...more }, phrase: 'refused' });
  const told = () => lines.splice(0).map(({ level: _, phrase: __, ...fields }) => fields);
  return { repeats, time, lines, warn, told };
}

test('the first is told at once and whole, the others once a minute in one line', () => {
  const { repeats, time, lines, warn, told } = repeatsOf();

  for (let id = 1; id <= 1000; id += 1) {
    warn('a', { id });
    repeats.report();
  }
  const first = { level: 'warn', phrase: 'refused', reason: 'login', from: 'a', id: 1 };
  assert.deepEqual(lines.splice(0), [first]);

  time.now += 59_999;
  repeats.report();
  assert.deepEqual(told(), []);
  time.now += 1;
  repeats.report();
  repeats.report();
  assert.deepEqual(told(), [{ reason: 'login', from: 'a', repeated: 999 }]);

  warn('a', { id: 1001 });
  time.now += 60_000;
  repeats.report();
  assert.deepEqual(told(), [{ reason: 'login', from: 'a', id: 1001, repeated: 1 }]);
});

test('after a minute without any the next is told at once again', () => {
  const { repeats, time, warn, told } = repeatsOf();
  warn('a', { id: 1 });
  time.now += 60_000;
  repeats.report();

  warn('a', { id: 2 });

  assert.deepEqual(
    told().map(({ id }) => id),
    [1, 2],
  );
});

test('what differs is told apart, by kind and by whose it is', () => {
  const { repeats, time, warn, told } = repeatsOf();

  for (const of of ['a', 'b']) for (const kind of ['login', 'token']) warn(of, {}, kind);
  assert.equal(told().length, 4);

  for (const of of ['a', 'b', 'b']) warn(of);
  time.now += 60_000;
  repeats.report();
  assert.deepEqual(told(), [
    { reason: 'login', from: 'a', repeated: 1 },
    { reason: 'login', from: 'b', repeated: 2 },
  ]);
});

test('however many there are, a hundred have lines of their own and the rest one a kind', () => {
  const { repeats, time, warn, told } = repeatsOf();
  const flood = () => {
    for (let of = 0; of < 1000; of += 1) {
      for (const kind of ['login', 'token']) warn(String(of), {}, kind);
    }
  };

  flood();
  assert.equal(told().length, 102);
  flood();
  assert.deepEqual(told(), []);

  time.now += 60_000;
  repeats.report();
  const lines = told();
  assert.equal(lines.length, 102);
  assert.deepEqual(lines.slice(-2), [
    { reason: 'login', repeated: 949 + 950 },
    { reason: 'token', repeated: 949 + 950 },
  ]);

  time.now += 60_000;
  repeats.report();
  warn('new');
  assert.deepEqual(told(), [{ reason: 'login', from: 'new' }]);
});

test('what is left is told at the end', () => {
  const { repeats, warn, told } = repeatsOf();
  for (let id = 1; id <= 3; id += 1) warn('a', { id });
  warn('b');
  told();

  repeats.end();
  repeats.end();

  assert.deepEqual(told(), [{ reason: 'login', from: 'a', repeated: 2 }]);
});
