import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { MemoryLogStore } from '../../test/support/databases/memory-log-store.js';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { toReader } from '../../test/support/to-reader.js';
import { unlimitedRetention } from '../../test/support/unlimited-retention.js';
import type { Failure } from '../errors.js';
import type { ControlEntry } from '../events/control-entry.js';
import { silentLogger } from '../logging/logger.js';
import { EventLog } from './event-log.js';

const mib = 1024 * 1024;

/** Opens an event log and delays its first commit, so that later appends wait in the queue. */
async function openBusyLog() {
  const store = new MemoryLogStore('e');
  store.release();
  const eventLog = await EventLog.open({
    store,
    log: silentLogger,
    wallClock: Date.now,
    limits: unlimitedRetention,
  });
  store.hold();
  const append = (count: number, bytes: number, recipients = 1) =>
    eventLog.append({
      events: Array.from({ length: count }, () => ({
        audiences: Array.from({ length: recipients }, (_, index) => `u:${index}`),
        type: undefined,
        data: 'x'.repeat(bytes),
        expiresAt: undefined,
      })),
      idempotency: undefined,
    });
  return { store, append, first: append(1, 1) };
}

function isQueueFull({ name, headers }: Failure): boolean {
  return name === 'service_unavailable' && headers['retry-after'] === '1';
}

test('waiting appends share commits of at most 1000 events, 10,000 recipients or 4 MiB', async () => {
  const { store, append, first } = await openBusyLog();
  const many = Array.from({ length: 30 }, () => append(100, 1));
  const large = Array.from({ length: 10 }, () => append(1, mib));
  const huge = append(3, 2 * mib); // Over the limit of a commit, but one request.
  const wide = Array.from({ length: 25 }, () => append(1, 1, 1000));

  store.release();
  await Promise.all([first, ...many, ...large, huge, ...wide]);

  // 1; 30 x 100 events; 10 x 1 MiB; 3 events of one request; 25 x 1000 recipients.
  assert.deepEqual(store.commits, [1, 1000, 1000, 1000, 4, 4, 2, 3, 10, 10, 5]);
});

test('an append is refused if more than 200,000 recipients would wait', async () => {
  const { store, append, first } = await openBusyLog();
  const waiting = Array.from({ length: 199 }, () => append(1, 1, 1000));

  await assert.rejects(append(1, 1, 1001), isQueueFull);
  const last = append(1, 1, 1000);
  await assert.rejects(append(1, 1), isQueueFull);

  store.release();
  await Promise.all([first, ...waiting, last]);
});

test('an append is refused if more than 64 MiB would wait', async () => {
  const { store, append, first } = await openBusyLog();
  const waiting = Array.from({ length: 63 }, () => append(1, mib));

  await assert.rejects(append(2, mib), isQueueFull);
  const last = append(1, mib);
  await assert.rejects(append(1, 1), isQueueFull);

  store.release();
  await Promise.all([first, ...waiting, last]);
  assert.deepEqual((await append(1, 1)).ids, ['e-66']);
});

test('an append is refused if more than 20,000 events would wait', async () => {
  const { store, append, first } = await openBusyLog();
  const waiting = Array.from({ length: 19 }, () => append(1000, 1));

  await assert.rejects(append(1001, 1), isQueueFull);
  const last = append(1000, 1);
  await assert.rejects(append(1, 1), isQueueFull);

  store.release();
  await Promise.all([first, ...waiting, last]);
});

test('a read that waits for other reads runs no query if it is no longer needed when they end', async () => {
  const store = new MemoryLogStore('e');
  store.release();
  store.appendExternally(['all'], 'x');
  const eventLog = await EventLog.open({
    store,
    log: silentLogger,
    wallClock: Date.now,
    limits: unlimitedRetention,
  });
  const read = (isNeeded: boolean) => eventLog.read(toReader(['all']), 0, 100, () => isNeeded);
  store.hold();
  const active = [1, 2, 3, 4].map(() => read(true));
  const [cancelled, waiting] = [read(false), read(true)];
  store.readError = new Error('the store was queried');

  store.release();

  await Promise.all(active);
  assert.deepEqual(await cancelled, {
    ...{ frames: [], endSeq: 0, hasMore: true, hasGap: false, topicsBySeq: undefined },
  });
  await assert.rejects(waiting, store.readError);
});

test('a read that waits for other reads ends at the head at its call, because its reader may get topics meanwhile', async () => {
  const store = new MemoryLogStore('e');
  store.release();
  store.appendExternally(['all'], 'x');
  const eventLog = await EventLog.open({
    ...{ store, log: silentLogger, wallClock: Date.now, limits: unlimitedRetention },
  });
  store.hold();
  const active = [1, 2, 3, 4].map(() => eventLog.read(toReader(['all']), 0, 100));
  const waiting = eventLog.read(toReader(['all']), 0, 100);
  store.appendControlEntry({ kind: 'members_added', members: { topic: 'a', userIds: ['1'] } });
  store.appendExternally(['t:a'], 'y');
  const applying = eventLog.catchUp();
  while (eventLog.head < 3) {
    store.step(active.length); // A step of the catch-up.
    await turn();
  }

  store.release();

  await Promise.all([...active, applying]);
  const { frames, endSeq } = await waiting;
  assert.deepEqual([frames.map(({ seq }) => seq), endSeq], [[1], 1]);
});

test('a catch-up that is requested during another catch-up delivers the events committed in between', async () => {
  const store = new MemoryLogStore('e');
  store.release();
  const eventLog = await EventLog.open({
    store,
    log: silentLogger,
    wallClock: Date.now,
    limits: unlimitedRetention,
  });
  store.hold();
  const first = eventLog.catchUp();
  store.step(0); // The head has been read, but the result has not arrived.
  store.appendExternally(['all'], 'x');

  const second = eventLog.catchUp();
  store.release();

  await first;
  await second;
  assert.equal(eventLog.head, 1);
});

test('a read reports a gap when events are trimmed before the page is read, but not when they are trimmed after', async () => {
  const store = new MemoryLogStore('e');
  store.release();
  store.appendExternally(['all'], 'x');
  const limits = unlimitedRetention;
  const eventLog = await EventLog.open({ store, log: silentLogger, wallClock: Date.now, limits });
  const readAround = async (trim: () => void) => {
    store.hold();
    const reading = eventLog.read(toReader(['all']), 0, 100);
    trim();
    store.release();
    return reading;
  };

  const after = await readAround(() => {
    store.step(0); // The page is read; its result has not arrived.
    store.trimmedSeq = 1;
  });
  assert.deepEqual([after.frames.length, after.hasGap], [1, false]);

  store.trimmedSeq = 0;
  const before = await readAround(() => {
    store.trimmedSeq = 1;
  });
  assert.deepEqual([before.frames.length, before.hasGap], [0, true]);
});

test('control entries of an unknown kind are ignored, and a warning is logged once', async () => {
  const store = new MemoryLogStore('e');
  store.release();
  const lines: Record<string, unknown>[] = [];
  const log = collectingLog(lines);
  const eventLog = await EventLog.open({
    store,
    log,
    wallClock: Date.now,
    limits: unlimitedRetention,
  });
  const received: unknown[] = [];
  eventLog.subscribe({
    deliver: ({ data }) => received.push(data),
    deliverVolatile() {},
    applyControl(entry) {
      received.push(entry.kind);
    },
    handleGap: () => received.push('gap'),
  });
  store.appendControlEntry({ kind: 'invented_later' });
  store.appendExternally(['all'], 'x');
  store.appendControlEntry({ kind: 'invented_later' });
  store.appendControlEntry({ kind: 'sessions_ended', sessionIds: ['s'] });

  await eventLog.catchUp();

  assert.deepEqual(received, ['x', 'sessions_ended']);
  assert.equal(eventLog.head, 4);
  assert.deepEqual(
    lines.map(({ phrase }) => phrase),
    ['control entry of a newer version is ignored'],
  );
});

/** Opens an event log on a store that responds at once. `received` gets what the subscriber is told. */
async function openReceivingLog(applyControl: (entry: ControlEntry) => void | Promise<void>) {
  const store = new MemoryLogStore('e');
  store.release();
  const lines: Record<string, unknown>[] = [];
  const eventLog = await EventLog.open({
    ...{ store, log: collectingLog(lines), wallClock: Date.now, limits: unlimitedRetention },
  });
  const received: unknown[] = [];
  eventLog.subscribe({
    deliver: ({ data }) => received.push(data),
    deliverVolatile: ({ data }, _, stamp) => received.push([data, stamp]),
    applyControl(entry) {
      received.push(entry.kind);
      return applyControl(entry);
    },
    handleGap: () => received.push('gap'),
  });
  const newEvent = (data: string, volatile = false) => {
    return { audiences: ['t:a'], type: undefined, data, volatile, expiresAt: undefined };
  };
  return { store, lines, eventLog, received, newEvent };
}

test('nothing is delivered or read after a control entry until it has been applied', async () => {
  let finish = () => {};
  const applied = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const { store, eventLog, received, newEvent } = await openReceivingLog(() => applied);
  const reader = { audiences: ['t:a'], topics: new Map() };
  store.appendExternally(['t:a'], 'first');
  store.appendControlEntry({ kind: 'sessions_ended', sessionIds: ['s'] });
  store.appendExternally(['t:a'], 'second');

  const catchingUp = eventLog.catchUp();
  const publishing = eventLog.publish([newEvent('third'), newEvent('fourth', true)], undefined);
  await turn();
  await turn();

  assert.deepEqual([received, eventLog.head], [['first', 'sessions_ended'], 1]);
  const meanwhile = await eventLog.read(reader, 0, 1e6);
  assert.deepEqual([meanwhile.frames.map(({ seq }) => seq), meanwhile.endSeq], [[1], 1]);
  finish();
  await Promise.all([catchingUp, publishing]);
  assert.deepEqual(received.slice(2), ['second', 'third', ['fourth', 4]]);
  assert.equal(eventLog.head, 4);
});

for (const [what, applyControl] of [
  ['rejects', () => Promise.reject(new Error('a defect'))],
  [
    'throws',
    () => {
      throw new Error('a defect');
    },
  ],
] as const) {
  test(`a subscriber that ${what} is logged, its streams end, and the event log goes on`, async () => {
    const { store, lines, eventLog, received } = await openReceivingLog(applyControl);
    store.appendControlEntry({ kind: 'sessions_ended', sessionIds: ['s'] });
    store.appendExternally(['t:a'], 'after it');

    await eventLog.catchUp();

    assert.deepEqual(received, ['sessions_ended', 'gap', 'after it']);
    assert.equal(eventLog.head, 2);
    assert.deepEqual(
      lines.map(({ level, phrase, seq }) => [level, phrase, seq]),
      [['error', 'control entry was not applied', 1]],
    );
  });
}

test('a control entry that is not JSON is logged, all streams end, and the event log goes on', async () => {
  for (const text of ['{"kind":"sessions_ended","sess', 'null']) {
    const { store, lines, eventLog, received } = await openReceivingLog(() => {});
    store.appendControlText(text);
    store.appendExternally(['t:a'], 'after it');

    await eventLog.catchUp();

    assert.deepEqual(received, ['gap', 'after it'], text);
    assert.equal(eventLog.head, 2);
    assert.deepEqual(
      lines.map(({ level, phrase, seq }) => [level, phrase, seq]),
      [['error', 'control entry was not applied', 1]],
    );
  }
});

test('the stamp of a volatile event does not grow while it waits for entries that were appended after it', async () => {
  const { store, eventLog, received, newEvent } = await openReceivingLog(() => {});
  store.readPublishSnapshot = async () => {
    store.appendControlEntry({ kind: 'members_added', members: { topic: 'a', userIds: ['1'] } });
    await eventLog.publish([newEvent('logged')], undefined);
    return { seq: 0, refusal: undefined };
  };

  await eventLog.publish([newEvent('before the member', true)], undefined);

  assert.deepEqual(received, ['members_added', 'logged', ['before the member', 0]]);
});

test('a volatile event is stamped with the number of the event with which it was published', async () => {
  const { eventLog, received, newEvent } = await openReceivingLog(() => {});
  const publish = (data: string) =>
    eventLog.publish([newEvent(`logged ${data}`), newEvent(data, true)], undefined);

  await Promise.all(['a', 'b', 'c'].map(publish)); // The last two share a commit.

  const stamped = received.filter((one) => Array.isArray(one));
  assert.deepEqual(stamped, [
    ['a', 1],
    ['b', 2],
    ['c', 3],
  ]);
});

test('a volatile event is stamped with the head that is stored when it is published', async () => {
  const { store, eventLog, received, newEvent } = await openReceivingLog(() => {});
  store.appendExternally(['t:a'], 'of another process');

  await eventLog.publish([newEvent('alone', true)], undefined);
  await eventLog.publish([newEvent('logged'), newEvent('with it', true)], undefined);

  assert.deepEqual(received, ['of another process', ['alone', 1], 'logged', ['with it', 2]]);
});
