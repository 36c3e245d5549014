import type { Logger } from '../logging/logger.js';
import { Pool } from '../workers/pool.js';
import type { AuthJobs, AuthThreadData } from './jobs.js';
import type { KeyRing } from './key-ring.js';

export interface AuthThreadsOptions {
  readonly count: number;
  /** Maximum number of queued password jobs per thread. The threads share one queue. */
  readonly queuePerThreadMax: number;
  /** A job whose estimated wait is longer is refused. */
  readonly queueWaitMaxMs: number;
  readonly ring: Pick<KeyRing, 'signingKey'>;
  readonly log: Logger;
}

/** Opens the threads that hash passwords and sign access tokens. Rejects when one fails to load. */
export function openAuthThreads(options: AuthThreadsOptions): Promise<Pool<AuthJobs>> {
  const { count, queuePerThreadMax, queueWaitMaxMs, ring, log } = options;
  const workerData: AuthThreadData = { signingKey: ring.signingKey };
  const waitMaxMs = queueWaitMaxMs;
  return Pool.open<AuthJobs>({
    entry: new URL('./jobs', import.meta.url),
    threads: count,
    workerData,
    log,
    lanes: {
      // argon2 runs on a native thread. Meanwhile the auth thread can sign, so refreshes do not wait
      // for logins.
      passwords: {
        jobs: ['verifyPassword', 'hashPassword'],
        perThreadMax: 1,
        queueMax: queuePerThreadMax * count,
        // Half of the queue, so that one client cannot fill it.
        perOwnerMax: Math.ceil((queuePerThreadMax * count) / 2),
        waitMaxMs,
      },
      tokens: { jobs: ['signAccessToken'], perThreadMax: 32, queueMax: 4096, waitMaxMs },
    },
  });
}
