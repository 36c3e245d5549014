import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryLogStore } from '../../test/support/databases/memory-log-store.js';
import { unlimitedRetention } from '../../test/support/unlimited-retention.js';
import { silentLogger } from '../logging/logger.js';
import { EventLog } from './event-log.js';

/** Adds `excess` to the next head that is read, as a proxy that mixes up responses may do. */
class UnreliableLogStore extends MemoryLogStore {
  excess = 0;

  override async readState() {
    return this.#addExcess(await super.readState());
  }

  override async readPublishSnapshot() {
    return this.#addExcess(await super.readPublishSnapshot());
  }

  #addExcess<Reading extends { readonly seq: number }>(reading: Reading): Reading {
    const seq = reading.seq + this.excess;
    this.excess = 0;
    return { ...reading, seq };
  }
}

function createStore(): UnreliableLogStore {
  const store = new UnreliableLogStore('e');
  store.release();
  store.appendExternally(['all'], '1');
  return store;
}

/** Opens an event log whose subscriber records the data of events, and gaps. */
async function openLog(store: UnreliableLogStore) {
  const options = { store, log: silentLogger, wallClock: Date.now, limits: unlimitedRetention };
  const eventLog = await EventLog.open(options);
  const received: string[] = [];
  eventLog.subscribe({
    deliver: ({ data }) => received.push(data),
    deliverVolatile: ({ data }) => received.push(data),
    applyControl() {},
    handleGap: () => received.push('gap'),
  });
  return { eventLog, received };
}

test('a reading of the head that is too high during a catch-up causes no gap, and later events are delivered', async () => {
  const store = createStore();
  const { eventLog, received } = await openLog(store);
  store.appendExternally(['all'], '2');

  store.excess = 3;
  await eventLog.catchUp();
  for (const data of ['3', '4']) store.appendExternally(['all'], data);
  await eventLog.catchUp();

  assert.deepEqual(received, ['2', '3', '4']);
});

test('an event log that is opened with a reading of the head that is too high delivers later events', async () => {
  const store = createStore();

  store.excess = 3;
  const { eventLog, received } = await openLog(store);
  store.appendExternally(['all'], '2');
  await eventLog.catchUp();

  assert.deepEqual(received, ['2']);
});

test('a stream does not start at a reading of the head that is too high', async () => {
  const store = createStore();
  const { eventLog } = await openLog(store);

  store.excess = 3;

  assert.equal((await eventLog.readState()).seq, 1);
});

test('a volatile event is refused when the head is uncertain', async () => {
  const store = createStore();
  const { eventLog, received } = await openLog(store);
  const event = { audiences: ['all'], type: undefined, data: 'v', expiresAt: undefined };
  const publish = () => eventLog.publish([{ ...event, volatile: true }], undefined);

  store.excess = 3;
  await assert.rejects(publish(), { name: 'service_unavailable' });
  await publish();

  assert.deepEqual(received, ['v']);
});
