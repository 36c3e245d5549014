import { workerData } from 'node:worker_threads';
import argon2 from 'argon2';
import jwt from 'jsonwebtoken';
import { serveJobs } from '../workers/thread.js';
import { trackNativeWork } from '../workers/thread-exit.js';
import type { SigningKey } from './key-ring.js';
import { type Argon2Cost, parseDigest } from './passwords/argon2-digest.js';

/** `workerData` of an auth thread. The key is cloned as a handle, not as bytes. */
export interface AuthThreadData {
  readonly signingKey: SigningKey;
}

interface HashInput {
  /** Normalised to NFKC. */
  readonly password: string;
  readonly cost: Argon2Cost;
  readonly pepper?: Uint8Array | undefined;
}

interface VerifyInput {
  /** Normalised to NFKC. */
  readonly password: string;
  readonly hash: string;
  readonly pepper?: Uint8Array | undefined;
}

const { signingKey } = workerData as AuthThreadData; // Set by `openAuthThreads`.

/**
 * The jobs of the auth threads. Error classes are lost between threads, so a job returns expected
 * results (`false`) and throws only for defects.
 */
const jobs = {
  /** Returns the PHC string `$argon2id$v=19$m=…,t=…,p=…$salt$tag`. Spec: RFC 9106. */
  hashPassword: ({ password, cost, pepper }: HashInput): Promise<string> =>
    trackNativeWork(
      argon2.hash(password, {
        type: argon2.argon2id,
        memoryCost: cost.memoryKib,
        timeCost: cost.passes,
        parallelism: cost.lanes,
        ...toSecretOption(pepper),
      }),
    ),

  /**
   * Returns false for a wrong password, and at once for a hash of another kind or with a cost out of bounds.
   */
  verifyPassword: async ({ password, hash, pepper }: VerifyInput): Promise<boolean> =>
    parseDigest(hash) !== undefined &&
    (await trackNativeWork(argon2.verify(hash, password, toSecretOption(pepper)))),

  /** Signs the claims unchanged, including `iat` and `exp`; the header is `{ alg, typ, kid }`. */
  signAccessToken: (claims: object): string =>
    // The callback form of `sign` uses streams on the same thread and takes twice as long.
    jwt.sign(claims, signingKey.key, {
      algorithm: signingKey.algorithm,
      keyid: signingKey.id,
    }),
};

export type AuthJobs = typeof jobs;

serveJobs(jobs);

function toSecretOption(pepper: Uint8Array | undefined): { secret?: Buffer } {
  return pepper === undefined ? {} : { secret: Buffer.from(pepper) };
}
