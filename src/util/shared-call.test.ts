import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyedSharedCalls, SharedCall } from './shared-call.js';

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

/** Creates a function whose calls wait until the test settles them. */
function createHeldCall() {
  const calls: PromiseWithResolvers<number>[] = [];
  const call = () => {
    const { promise, resolve, reject } = createDeferred();
    calls.push({ promise, resolve, reject });
    return promise;
  };
  return { calls, call };
}

interface PromiseWithResolvers<Result> {
  readonly promise: Promise<Result>;
  readonly resolve: (result: Result) => void;
  readonly reject: (cause: unknown) => void;
}

function createDeferred(): PromiseWithResolvers<number> {
  let resolve: (result: number) => void = () => {};
  let reject: (cause: unknown) => void = () => {};
  const promise = new Promise<number>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}

test('requests that arrive during a call share the next call', async () => {
  const { calls, call } = createHeldCall();
  const shared = new SharedCall(call);

  const first = shared.run();
  const others = [shared.run(), shared.run()];
  assert.equal(calls.length, 1);
  calls[0]?.resolve(1);
  await nextTurn();
  assert.equal(calls.length, 2);
  calls[1]?.resolve(2);

  assert.equal(await first, 1);
  assert.deepEqual(await Promise.all(others), [2, 2]);
});

test('a call that fails rejects only its own requests', async () => {
  const { calls, call } = createHeldCall();
  const shared = new SharedCall(call);

  const first = shared.run();
  const second = shared.run();
  calls[0]?.reject(new Error('unavailable'));
  await assert.rejects(first, /unavailable/);
  await nextTurn();
  calls[1]?.resolve(2);

  assert.equal(await second, 2);
});

test('a request after the last call has settled starts a call at once', async () => {
  const { calls, call } = createHeldCall();
  const shared = new SharedCall(call);
  const first = shared.run();
  calls[0]?.resolve(1);
  await first;

  const second = shared.run();

  assert.equal(calls.length, 2);
  calls[1]?.resolve(2);
  assert.equal(await second, 2);
});

test('requests share calls only with requests of the same key', async () => {
  const [one, other] = [createHeldCall(), createHeldCall()];
  const shared = new KeyedSharedCalls<number>();

  const results = [
    shared.run('one', one.call),
    shared.run('other', other.call),
    shared.run('one', one.call),
    shared.run('one', one.call),
  ];
  assert.deepEqual([one.calls.length, other.calls.length], [1, 1]);
  one.calls[0]?.resolve(1);
  other.calls[0]?.resolve(2);
  await results[0];
  await nextTurn();
  assert.equal(one.calls.length, 2);
  one.calls[1]?.resolve(3);

  assert.deepEqual(await Promise.all(results), [1, 2, 3, 3]);
});

test('a key is dropped when its calls have settled', async () => {
  const shared = new KeyedSharedCalls<string>();
  await assert.rejects(
    shared.run('key', () => Promise.reject(new Error('failed'))),
    /failed/,
  );

  assert.equal(await shared.run('key', async () => 'another call'), 'another call');
});
