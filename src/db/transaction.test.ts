import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failure } from '../errors.js';
import { TransactionConflict, withRetries } from './transaction.js';

/** Returns an attempt that meets a conflict as often as given, then succeeds, and counts its calls. */
function createAttempt(conflicts: number) {
  const calls = { count: 0 };
  const attempt = async () => {
    calls.count += 1;
    if (calls.count <= conflicts) throw new TransactionConflict('on purpose');
    return 'committed';
  };
  return { attempt, calls };
}

test('a transaction is tried three times, after pauses that differ between processes', async () => {
  const { attempt, calls } = createAttempt(2);
  const randoms: number[] = [];
  const random = () => {
    randoms.push(calls.count);
    return 0;
  };

  assert.equal(await withRetries(attempt, random), 'committed');

  assert.equal(calls.count, 3);
  assert.deepEqual(randoms, [1, 2]); // Each pause is random.
});

test('after the third conflict a transaction rejects with service_unavailable', async () => {
  const { attempt, calls } = createAttempt(3);

  await assert.rejects(withRetries(attempt), (error) => {
    assert.ok(error instanceof Failure);
    assert.equal(error.name, 'service_unavailable');
    assert.ok(error.cause instanceof TransactionConflict);
    return true;
  });

  assert.equal(calls.count, 3);
});

test('an error that is no conflict is not retried', async () => {
  let calls = 0;

  const failing = withRetries(async () => {
    calls += 1;
    throw new RangeError('on purpose');
  });

  await assert.rejects(failing, RangeError);
  assert.equal(calls, 1);
});
