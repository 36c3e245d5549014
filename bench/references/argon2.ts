// The cost of password verification alone: argon2 with the parameters and thread count of Herald.
import { Worker } from 'node:worker_threads';
import argon2 from 'argon2';
import { handleRequests } from '../process/request-handler.js';

export interface VerificationRate {
  readonly count: number;
  /** Per second. */
  readonly rate: number;
}

/** Plain JavaScript, like a worker of a built Herald. */
const workerSource = `
const { parentPort, workerData } = require('node:worker_threads');
const argon2 = require(workerData.argon2);
parentPort.on('message', async ({ hash, ms }) => {
  const startedAt = performance.now();
  let count = 0;
  while (performance.now() - startedAt < ms) {
    if (!(await argon2.verify(hash, 'correct horse battery'))) throw new Error('wrong');
    count += 1;
  }
  parentPort.postMessage({ count, rate: count / ((performance.now() - startedAt) / 1000) });
});`;

const hash = process.env['HASH'] ?? '';
const workerData = { argon2: process.env['ARGON2'] };
const workers = Array.from(
  { length: Number(process.env['THREADS']) },
  () => new Worker(workerSource, { eval: true, workerData }),
);

handleRequests({
  /** Verifies for `ms` milliseconds. Returns the count and rate per second of all threads. */
  async verify(ms: number): Promise<VerificationRate> {
    const threadRates = workers.map(
      (worker) =>
        new Promise<VerificationRate>((resolve) => {
          worker.once('message', resolve);
          worker.postMessage({ hash, ms });
        }),
    );
    return (await Promise.all(threadRates)).reduce((all, { count, rate }) => ({
      count: all.count + count,
      rate: all.rate + rate,
    }));
  },
});
if (!(await argon2.verify(hash, 'correct horse battery'))) throw new Error('Cannot verify');
process.stdout.write('ready\n');
