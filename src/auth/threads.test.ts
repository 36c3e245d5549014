import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort } from 'node:worker_threads';
import argon2 from 'argon2';
import { withDeadline } from '../../test/support/with-deadline.js';
import { Failure } from '../errors.js';
import { silentLogger } from '../logging/logger.js';
import { startThread } from '../util/start-thread.js';
import { Pool } from '../workers/pool.js';
import type { MessageToThread } from '../workers/thread.js';
import type { AuthJobs } from './jobs.js';
import { createKeyRing } from './key-ring.js';

// This file is also the entry of the threads. They run the real jobs, but a password that is a key of
// `endings` ends the thread while the password is being hashed.

const endings: Readonly<Record<string, () => unknown>> = {
  'an exception': () => {
    throw new Error('nobody caught this');
  },
  'a rejection': () => Promise.reject(new Error('nobody caught this')),
  'process.exit': () => process.exit(3),
  'process.exit(0)': () => process.exit(0),
};

/** A password that blocks the thread while it is being hashed. */
const hang = 'a loop without an end';

function blockThread(): never {
  while (true);
}

/** Takes some tenths of a second, so that the hash is running when its thread ends. */
const cost = { memoryCost: 65_536, timeCost: 6, parallelism: 1, type: argon2.argon2id };

async function openPool(jobMsMax = 60_000): Promise<Pool<AuthJobs>> {
  const { signingKey } = createKeyRing({ algorithm: 'HS256', secret: randomBytes(32) });
  const waits = { queueMax: 8, waitMaxMs: 60_000 };
  return Pool.open<AuthJobs>({
    entry: new URL('./threads.test', import.meta.url),
    threads: 1,
    workerData: { signingKey },
    log: silentLogger,
    backOffMs: 1,
    jobMsMax,
    lanes: {
      passwords: { jobs: ['verifyPassword', 'hashPassword'], perThreadMax: 1, ...waits },
      tokens: { jobs: ['signAccessToken'], perThreadMax: 32, ...waits },
    },
  });
}

async function poolFor(t: TestContext): Promise<Pool<AuthJobs>> {
  const pool = await openPool();
  t.after(() => pool.close());
  return pool;
}

/**
 * Lets the only thread of a pool hang while it hashes, verifies another password, closes the pool, and prints
 * the outcomes. Then kills this process, because on exit the thread would abort it.
 */
async function hangWhileHashing(): Promise<void> {
  const pool = await openPool(2000); // Much longer than a hash takes.
  const hash = await argon2.hash('right', { memoryCost: 7168, timeCost: 1, parallelism: 1 });
  const outcome = await pool.run('verifyPassword', { password: hang, hash }).catch(String);
  const next = await pool.run('verifyPassword', { password: 'right', hash });
  await pool.close();
  const report = JSON.stringify({ outcome, next });
  process.stdout.write(report, () => process.kill(process.pid, 'SIGKILL'));
}

if (isMainThread && process.argv.includes('hang')) {
  await hangWhileHashing();
} else if (isMainThread) {
  for (const ending of Object.keys(endings)) {
    test(`the pool replaces a thread that ends by ${ending} during a hash, and the process keeps running`, async (t) => {
      const pool = await poolFor(t);
      const hash = await argon2.hash(ending, cost);
      const nextHash = await argon2.hash('right');

      const interrupted = pool.run('verifyPassword', { password: ending, hash });
      const following = pool.run('verifyPassword', { password: 'right', hash: nextHash });

      await assert.rejects(interrupted, (cause) => {
        assert.ok(cause instanceof Failure, String(cause));
        assert.equal(cause.name, 'service_unavailable');
        return true;
      });
      assert.equal(await following, true);
      const { threads, crashes, running } = pool.state;
      assert.deepEqual({ threads, crashes, running }, { threads: 1, crashes: 1, running: 0 });
      await pool.close(); // Waits for the thread that is still hashing.
    });
  }

  test('a thread that hangs while it hashes is replaced but not terminated, which would abort the process', async (t) => {
    const file = fileURLToPath(import.meta.url);
    const child = spawn(process.execPath, ['--import', 'tsx', file, 'hang']);

    t.after(() => child.kill('SIGKILL'));

    const ending = Promise.all([text(child.stdout), once(child, 'close')]);
    const [report, [code, signal]] = await withDeadline(ending, 'the end of the process');

    assert.deepEqual([code, signal], [null, 'SIGKILL'], await text(child.stderr));
    assert.deepEqual(JSON.parse(report), {
      outcome: 'service_unavailable: Cannot answer now: its worker thread failed',
      next: true,
    });
  });

  test('a thread that receives `end` finishes its hash and starts no further job', async () => {
    const hash = await argon2.hash('right', cost);
    const { signingKey } = createKeyRing({ algorithm: 'HS256', secret: randomBytes(32) });
    const entry = new URL('./threads.test', import.meta.url);
    const thread = startThread(entry, { workerData: { signingKey } });
    await withDeadline(once(thread, 'message'), 'the message that the thread is ready');
    const messages: unknown[] = [];
    thread.on('message', ({ kind, id }) => messages.push([kind, id]));
    const input = { password: 'right', hash };

    thread.postMessage({ id: 1, name: 'verifyPassword', input });
    thread.postMessage('end');
    thread.postMessage({ id: 2, name: 'verifyPassword', input });
    await withDeadline(once(thread, 'exit'), 'the exit of the thread');

    assert.deepEqual(messages, [
      ['exiting', undefined],
      ['returned', 1],
    ]);
  });

  test('closing a pool waits for a running hash', async (t) => {
    const pool = await poolFor(t);
    const hash = await argon2.hash('right', cost);

    const verified = pool.run('verifyPassword', { password: 'right', hash });
    await pool.close();

    assert.equal(await verified, true);
  });
} else {
  await import('./jobs.js');
  parentPort?.on('message', (message: MessageToThread) => {
    if (message === 'end' || !('name' in message) || message.name !== 'verifyPassword') return;
    const { password } = message.input as { password: string };
    const end = password === hang ? blockThread : endings[password];
    // By then the hash is running, because `serveJobs` received the message first.
    if (end !== undefined) setImmediate(end);
  });
}
