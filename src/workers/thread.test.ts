import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BroadcastChannel, isMainThread, threadId, workerData } from 'node:worker_threads';
import { serveJobs } from './thread.js';

// Also the entry module of the threads in `pool.test.ts`, so that test jobs are not part of the build.

interface TestData {
  /** Number of threads that may still load; later threads throw before they are ready. */
  readonly loadsLeft?: Int32Array;
}

const heldNames: unknown[] = [];

const jobs = {
  echo: (input: unknown): unknown => input,

  whoAmI: (_: undefined): number => threadId,

  /** Returns the inputs of all `hold` jobs that this thread has started. */
  startedHolds: (_: undefined): unknown[] => heldNames,

  /** Announces its start on the channel of that name, and runs until it receives a message there. */
  hold: (name: string): Promise<number> => {
    heldNames.push(name);
    const channel = new BroadcastChannel(name);
    return new Promise((resolve) => {
      channel.onmessage = () => {
        channel.close();
        resolve(threadId);
      };
      channel.postMessage('started');
    });
  },

  fail: (message: string): never => {
    throw new Error(message);
  },

  failWithUncloneable: (_: undefined): Promise<never> =>
    Promise.reject({ toString: () => 'odd', odd() {} }),

  returnFunction:
    (_: undefined): unknown =>
    () => {},

  /** Crashes the thread with an uncaught exception. */
  crash: (message: string): Promise<never> =>
    new Promise(() => {
      setImmediate(() => {
        throw new Error(message);
      });
    }),

  exit: (code: number): never => process.exit(code),

  /** Blocks the thread, so that it handles no messages and no timers. */
  spin: (_: undefined): never => {
    while (true);
  },
};

export type TestJobs = typeof jobs;

if (isMainThread) {
  test('jobs are served in worker threads only', () => {
    assert.throws(() => serveJobs({}), /not a worker thread/);
  });
} else {
  const { loadsLeft } = (workerData ?? {}) as TestData;
  if (loadsLeft !== undefined && Atomics.sub(loadsLeft, 0, 1) <= 0) {
    throw new Error('This thread does not load');
  }
  serveJobs(jobs);
}
