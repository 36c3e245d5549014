import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toReader } from '../../test/support/to-reader.js';
import { RecentEvents } from './recent-events.js';

const frame = (seq: number, bytes = 1) => ({ seq, bytes: Buffer.alloc(bytes) });
const forUser = (id: string, expiresAt?: number) => ({ audiences: [`u:${id}`], expiresAt });
const pageAfter = (recent: RecentEvents, after: number, audiences: string[], now = 0) =>
  recent.read({ reader: toReader(audiences), after, bytesMax: 1e9, now });
const seqsAfter = (recent: RecentEvents, after: number, ...audiences: string[]) =>
  pageAfter(recent, after, audiences)?.frames.map((found) => found.seq);

test('read returns the cached events for the given audiences after the given position', () => {
  const recent = new RecentEvents(10);
  for (const seq of [11, 12, 13, 14]) recent.add(frame(seq), forUser(String(seq % 2)));

  assert.deepEqual(seqsAfter(recent, 10, 'all', 'u:1'), [11, 13]);
  assert.deepEqual(seqsAfter(recent, 11, 'all', 'u:1'), [13]);
  assert.deepEqual(seqsAfter(recent, 14, 'u:0', 'u:1'), []);
  assert.deepEqual(seqsAfter(recent, 20, 'u:0', 'u:1'), []);
});

test('read returns undefined for a position older than the cache', () => {
  const recent = new RecentEvents(10);

  assert.equal(seqsAfter(recent, 9, 'u:1'), undefined);
  assert.deepEqual(seqsAfter(recent, 10, 'u:1'), []);
});

test('the cache holds 8 MiB, counting 256 bytes per event and 96 per recipient in addition to the frames', () => {
  const recent = new RecentEvents(0);
  const fittingCount = (8 * 1024 * 1024) / 1024;
  for (let seq = 1; seq <= 3 * fittingCount; seq += 1) recent.add(frame(seq, 672), forUser('1'));

  assert.equal(seqsAfter(recent, 2 * fittingCount - 1, 'u:1'), undefined);
  for (const seq of [2 * fittingCount, 2.5 * fittingCount, 3 * fittingCount - 1]) {
    const expected = Array.from({ length: 3 * fittingCount - seq }, (_, index) => seq + 1 + index);
    assert.deepEqual(seqsAfter(recent, seq, 'u:1'), expected);
  }
});

test('events with many recipients are evicted sooner', () => {
  const recent = new RecentEvents(0);
  const audiences = Array.from({ length: 1000 }, (_, index) => `u:${index}`);
  const bytesPerEvent = 1024 + 96_000;
  const fittingCount = Math.floor((8 * 1024 * 1024) / bytesPerEvent);
  for (let seq = 1; seq <= 100; seq += 1) {
    recent.add(frame(seq, 768), { audiences, expiresAt: undefined });
  }

  assert.equal(seqsAfter(recent, 100 - fittingCount - 1, 'u:999'), undefined);
  assert.equal(seqsAfter(recent, 100 - fittingCount, 'all', 'u:999')?.length, fittingCount);
});

test('a page ends with the frame that reaches the byte limit, and reports whether more frames follow', () => {
  const recent = new RecentEvents(0);
  for (let seq = 1; seq <= 6; seq += 1) recent.add(frame(seq, 10), forUser(String(seq % 2)));
  const page = (after: number, bytesMax: number) => {
    const found = recent.read({ reader: toReader(['u:1']), after, bytesMax, now: 0 });
    return [found?.frames.map(({ seq }) => seq), found?.hasMore];
  };

  assert.deepEqual(page(0, 10), [[1], true]);
  assert.deepEqual(page(0, 11), [[1, 3], true]);
  assert.deepEqual(page(3, 10), [[5], false]);
  assert.deepEqual(page(0, 30), [[1, 3, 5], false]);
});

test('expired events are skipped', () => {
  const recent = new RecentEvents(0);
  recent.add(frame(1), forUser('1', 1000));

  assert.equal(pageAfter(recent, 0, ['u:1'], 999)?.frames.length, 1);
  assert.equal(pageAfter(recent, 0, ['u:1'], 1000)?.frames.length, 0);
});

test('an event of a topic is returned only above the number since which the reader has the topic', () => {
  const recent = new RecentEvents(0);
  const recipients = [['t:a'], ['t:a', 't:b'], ['t:b', 'u:1'], ['t:b'], ['u:2', 't:a'], ['t:c']];
  for (const [index, audiences] of recipients.entries())
    recent.add(frame(index + 1), { audiences, expiresAt: undefined });
  const read = (topics: Record<string, number>, after = 0, bytesMax = 1e9) => {
    const found = recent.read({ reader: toReader(['u:1'], topics), after, bytesMax, now: 0 });
    return [found?.frames.map(({ seq }) => seq), found?.topicsBySeq, found?.hasMore];
  };

  assert.deepEqual(read({}), [[3], undefined, false]);
  const all: [number, string[]][] = [
    [1, ['t:a']],
    [2, ['t:a', 't:b']],
    [4, ['t:b']],
    [5, ['t:a']],
  ];
  assert.deepEqual(read({ a: 0, b: 1 }), [[1, 2, 3, 4, 5], new Map(all), false]);
  assert.deepEqual(read({ a: 4, b: 2 }), [[3, 4, 5], new Map(all.slice(2)), false]);
  assert.deepEqual(read({ a: 5, b: 4 }), [[3], undefined, false]);
  assert.deepEqual(read({ a: 0 }, 4), [[5], new Map(all.slice(3)), false]);
  assert.deepEqual(read({ a: 0 }, 0, 1), [[1], new Map([[1, ['t:a']]]), true]);
});
