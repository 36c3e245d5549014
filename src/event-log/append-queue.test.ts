import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryLogStore } from '../../test/support/databases/memory-log-store.js';
import { Failure } from '../errors.js';
import { AppendQueue } from './append-queue.js';
import type { AppendOutcome, AppendRequest } from './log-store.js';

const createRequest = (data: string): AppendRequest => ({
  events: [{ audiences: ['all'], type: undefined, data, expiresAt: undefined }],
  idempotency: undefined,
});
const unavailable = new Failure('service_unavailable', 'Cannot reach the database');

/** Opens a queue over a store that fails its appends with `failures` in order, then succeeds. */
function openQueue({ onAppended = () => {} } = {}) {
  const store = new MemoryLogStore('e');
  store.release();
  const failures: (Error | undefined)[] = [];
  const groups: string[] = [];
  let uncertainCount = 0;
  const queue = new AppendQueue({
    store: {
      async append(requests) {
        groups.push(requests.flatMap(({ events }) => events.map(({ data }) => data)).join(' '));
        const failure = failures.shift();
        if (failure !== undefined) throw failure;
        return store.append(requests);
      },
    },
    onAppended,
    async onUncertainCommit() {
      uncertainCount += 1;
    },
  });
  const append = (data: string) => queue.append(createRequest(data));
  return { queue, append, failures, groups, uncertainCount: () => uncertainCount };
}

const getSeqs = (outcome: AppendOutcome) => (outcome.kind === 'appended' ? outcome.seqs : []);

const getOutcomes = async (appended: readonly Promise<unknown>[]) =>
  (await Promise.allSettled(appended)).map(({ status }) => status === 'fulfilled');

test('when the store is unavailable, all waiting appends are rejected at once', async () => {
  const { queue, append, failures, groups, uncertainCount } = openQueue();
  failures.push(unavailable);

  const outcomes = await getOutcomes(['a', 'b', 'c'].map(append));
  await queue.idle();

  assert.deepEqual(outcomes, [false, false, false]);
  assert.deepEqual(groups, ['a']);
  assert.deepEqual([uncertainCount(), queue.waitingEvents], [1, 0]);
  assert.deepEqual(getSeqs(await append('d')), [1]);
});

test('when the store becomes unavailable while a group is retried one by one, the other appends are rejected at once', async () => {
  const { append, failures, groups, uncertainCount } = openQueue();
  failures.push(undefined, new Error('one is bad'), undefined, new Error('bad'), unavailable);

  const outcomes = await getOutcomes(['a', 'b', 'c', 'd', 'e'].map(append));

  assert.deepEqual(outcomes, [true, true, false, false, false]);
  assert.deepEqual(groups, ['a', 'b c d e', 'b', 'c', 'd']);
  assert.equal(uncertainCount(), 2);
  assert.deepEqual(getSeqs(await append('f')), [3]);
});

test('an append that is too large by itself does not fail the appends of its group or the appends behind it', async () => {
  const { append, failures, groups } = openQueue();
  const tooLarge = new Failure('payload_too_large', 'Cannot write rows: too large');
  failures.push(undefined, tooLarge, undefined, tooLarge);

  const first = ['a', 'b', 'c', 'd'].map(append);
  await first[1];
  const outcomes = await getOutcomes([...first, append('e')]);

  assert.deepEqual(outcomes, [true, true, false, true, true]);
  assert.deepEqual(groups, ['a', 'b c d', 'b', 'c', 'd', 'e']);
});

test('after the appends of a failed group were retried one by one, later appends share transactions again', async () => {
  const { append, failures, groups } = openQueue();
  failures.push(undefined, new Error('one is bad'));

  const first = ['a', 'b', 'c'].map(append);
  await first[1];
  const outcomes = await getOutcomes([...first, ...['d', 'e'].map(append)]);

  assert.deepEqual(outcomes, [true, true, true, true, true]);
  assert.deepEqual(groups, ['a', 'b c', 'b', 'c', 'd e']);
});

test('events are appended once even if `onAppended` throws', async () => {
  const { queue, append, groups } = openQueue({
    onAppended() {
      throw new Error('a defect');
    },
  });

  const appended = append('a');
  // Handled here, because an unhandled rejection ends the process.
  const idle = assert.rejects(queue.idle(), /a defect/);

  assert.deepEqual(getSeqs(await appended), [1]);
  await idle;
  assert.deepEqual(groups, ['a']);
});
