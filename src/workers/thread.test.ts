import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BroadcastChannel, isMainThread, threadId, workerData } from 'node:worker_threads';
import { serveJobs } from './thread.js';

// Also the entry of the threads in `pool.test.ts`, so that jobs for tests are no part of a build.

interface TestData {
  /** So many threads load; those that come later throw before they are ready. */
  readonly loadsBefore?: Int32Array;
}

const begun: unknown[] = [];

const jobs = {
  echo: (input: unknown): unknown => input,

  whoAmI: (_: undefined): number => threadId,

  /** All inputs of `hold` that this thread ever began. */
  whatBegan: (_: undefined): unknown[] => begun,

  /** Says on the channel of that name that it began, and lasts until told to go on. */
  hold: (name: string): Promise<number> => {
    begun.push(name);
    const channel = new BroadcastChannel(name);
    return new Promise((resolve) => {
      channel.onmessage = () => {
        channel.close();
        resolve(threadId);
      };
      channel.postMessage('began');
    });
  },

  fail: (message: string): never => {
    throw new Error(message);
  },

  failOddly: (_: undefined): Promise<never> => Promise.reject({ toString: () => 'odd', odd() {} }),

  returnFunction:
    (_: undefined): unknown =>
    () => {},

  /** Dies of what nobody catches. */
  die: (message: string): Promise<never> =>
    new Promise(() => {
      setImmediate(() => {
        throw new Error(message);
      });
    }),

  exit: (code: number): never => process.exit(code),
};

export type TestJobs = typeof jobs;

if (isMainThread) {
  test('jobs are served in worker threads only', () => {
    assert.throws(() => serveJobs({}), /not a worker thread/);
  });
} else {
  const { loadsBefore } = (workerData ?? {}) as TestData;
  if (loadsBefore !== undefined && Atomics.sub(loadsBefore, 0, 1) <= 0) {
    throw new Error('This thread does not load');
  }
  serveJobs(jobs);
}
