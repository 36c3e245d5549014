// A reference without a server: only verifies passwords, with argon2's parameters in `HASH` and one
// worker thread per core (`THREADS`).
import { Worker } from 'node:worker_threads';
import argon2 from 'argon2';
import { handleRequests } from '../process/request-handler.js';

export interface VerificationRate {
  readonly count: number;
  readonly perSecond: number;
}

/** The code of each worker: JavaScript without `tsx`, like that of a worker of a built Herald. */
const workerSource = `
const { parentPort, workerData } = require('node:worker_threads');
const argon2 = require(workerData.argon2);
parentPort.on('message', async ({ hash, durationMs }) => {
  const startedAt = performance.now();
  let count = 0;
  while (performance.now() - startedAt < durationMs) {
    if (!(await argon2.verify(hash, 'correct horse battery'))) throw new Error('Cannot verify');
    count += 1;
  }
  parentPort.postMessage({ count, perSecond: count / ((performance.now() - startedAt) / 1000) });
});`;

const hash = process.env['HASH'] ?? '';
const workerData = { argon2: process.env['ARGON2'] };
const workers = Array.from(
  { length: Number(process.env['THREADS']) },
  () => new Worker(workerSource, { eval: true, workerData }),
);

handleRequests({
  /** Verifies the password for `durationMs`. Returns the count and rate of all threads together. */
  async verify(durationMs: number): Promise<VerificationRate> {
    const threadRates = workers.map(
      (worker) =>
        new Promise<VerificationRate>((resolve) => {
          worker.once('message', resolve);
          worker.postMessage({ hash, durationMs });
        }),
    );
    return (await Promise.all(threadRates)).reduce((sum, { count, perSecond }) => ({
      count: sum.count + count,
      perSecond: sum.perSecond + perSecond,
    }));
  },
});
if (!(await argon2.verify(hash, 'correct horse battery'))) throw new Error('Cannot verify');
process.stdout.write('ready\n');
