import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryLog } from '../../test/support/databases/memory-log.js';
import { Failure } from '../errors.js';
import { AppendQueue } from './append-queue.js';
import type { AppendRequest } from './log-store.js';

const requestOf = (data: string): AppendRequest => ({
  events: [{ audiences: ['all'], type: undefined, data, expiresAt: undefined }],
  idempotency: undefined,
});
const away = new Failure('service_unavailable', 'Cannot reach the database');

/** A queue over a store whose appends end as `troubles` says, one after the other, then well. */
function openQueue({ onWritten = () => {} } = {}) {
  const store = new MemoryLog('e');
  store.openGates();
  const troubles: (Error | undefined)[] = [];
  const groups: string[] = [];
  let looks = 0;
  const queue = new AppendQueue({
    store: {
      async append(requests) {
        groups.push(requests.flatMap(({ events }) => events.map(({ data }) => data)).join(' '));
        const trouble = troubles.shift();
        if (trouble !== undefined) throw trouble;
        return store.append(requests);
      },
    },
    onWritten,
    async onUncertain() {
      looks += 1;
    },
  });
  const append = (data: string) => queue.append(requestOf(data));
  return { queue, append, troubles, groups, looks: () => looks };
}

const endsOf = async (appended: readonly Promise<unknown>[]) =>
  (await Promise.allSettled(appended)).map(({ status }) => status === 'fulfilled');

test('when the store is away, all that wait are told at once', async () => {
  const { queue, append, troubles, groups, looks } = openQueue();
  troubles.push(away);

  const ends = await endsOf(['a', 'b', 'c'].map(append));
  await queue.idle();

  assert.deepEqual(ends, [false, false, false]);
  assert.deepEqual(groups, ['a']);
  assert.deepEqual([looks(), queue.waitingEvents], [1, 0]);
  assert.equal((await append('d')).firstSeq, 1);
});

test('when the store goes away while each has a try alone, the others are told at once', async () => {
  const { append, troubles, groups, looks } = openQueue();
  troubles.push(undefined, new Error('one is bad'), undefined, new Error('bad'), away);

  const ends = await endsOf(['a', 'b', 'c', 'd', 'e'].map(append));

  assert.deepEqual(ends, [true, true, false, false, false]);
  assert.deepEqual(groups, ['a', 'b c d e', 'b', 'c', 'd']);
  assert.equal(looks(), 2);
  assert.equal((await append('f')).firstSeq, 3);
});

test('after each had a try alone, commits are shared again', async () => {
  const { append, troubles, groups } = openQueue();
  troubles.push(undefined, new Error('one is bad'));

  const first = ['a', 'b', 'c'].map(append);
  await first[1];
  const ends = await endsOf([...first, ...['d', 'e'].map(append)]);

  assert.deepEqual(ends, [true, true, true, true, true]);
  assert.deepEqual(groups, ['a', 'b c', 'b', 'c', 'd e']);
});

test('a defect in delivery does not write the events again', async () => {
  const { queue, append, groups } = openQueue({
    onWritten() {
      throw new Error('a defect');
    },
  });

  const appended = append('a');
  const idle = assert.rejects(queue.idle(), /a defect/); // Else it would end the process.

  assert.equal((await appended).firstSeq, 1);
  await idle;
  assert.deepEqual(groups, ['a']);
});
