import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failure } from '../errors.js';
import { TransactionConflict, withRetries } from './transaction.js';

/**
 * Returns a function that throws `TransactionConflict` in its first `conflicts` calls and then succeeds, and
 * the number of its calls.
 */
function createAttempt(conflicts: number) {
  const calls = { count: 0 };
  const attempt = async () => {
    calls.count += 1;
    if (calls.count <= conflicts) throw new TransactionConflict('on purpose');
    return 'committed';
  };
  return { attempt, calls };
}

test('a transaction is retried twice after conflicts, each time after a random pause', async () => {
  const { attempt, calls } = createAttempt(2);
  const attemptsBeforePause: number[] = [];
  const random = () => {
    attemptsBeforePause.push(calls.count);
    return 0;
  };

  assert.equal(await withRetries(attempt, random), 'committed');

  assert.equal(calls.count, 3);
  assert.deepEqual(attemptsBeforePause, [1, 2]); // Each pause uses a new random number.
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

test('a transaction that fails with another error than a conflict is not retried', async () => {
  let calls = 0;

  const failing = withRetries(async () => {
    calls += 1;
    throw new RangeError('on purpose');
  });

  await assert.rejects(failing, RangeError);
  assert.equal(calls, 1);
});
