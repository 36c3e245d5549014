import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { BroadcastChannel } from 'node:worker_threads';
import { until } from '../../test/support/until.js';
import { Failure } from '../errors.js';
import { silentLogger } from '../logging/logger.js';
import type { Lane } from './lane.js';
import { Pool, type PoolOptions } from './pool.js';
import type { TestJobs } from './thread.test.js';

const entry = new URL('./thread.test', import.meta.url);
const slow: Lane<keyof TestJobs> = {
  jobs: ['hold', 'die', 'exit'],
  perThread: 1,
  queueMax: 3,
  waitMaxMs: 60_000,
};
const quick: Lane<keyof TestJobs> = {
  jobs: ['echo', 'whoAmI', 'whatBegan', 'fail', 'failOddly', 'returnFunction'],
  perThread: 4,
  queueMax: 100,
  waitMaxMs: 60_000,
};

type Changes = Partial<PoolOptions<TestJobs>> & { slow?: Partial<Lane<keyof TestJobs>> };

async function openPool(t: TestContext, { slow: changed, ...changes }: Changes = {}) {
  const pool = await Pool.open<TestJobs>({
    entry,
    threads: 1,
    lanes: { slow: { ...slow, ...changed }, quick },
    log: silentLogger,
    backOffMs: 1,
    ...changes,
  });
  t.after(() => pool.close());
  return pool;
}

/** What a `hold` job waits at. */
class ThreadLatch {
  readonly name = `gate ${randomUUID()}`;
  /** Settles when the job has begun in its thread. */
  readonly began: Promise<void>;
  readonly #channel = new BroadcastChannel(this.name);

  constructor() {
    this.began = new Promise((resolve) => {
      this.#channel.onmessage = () => resolve();
    });
  }

  /** The job returns. */
  open(): void {
    this.#channel.postMessage('go on');
    this.close();
  }

  close(): void {
    this.#channel.close();
  }
}

/** A thread of the pool is busy in the slow lane until the gate is opened. */
async function holdThread(
  pool: Pool<TestJobs>,
): Promise<{ gate: ThreadLatch; result: Promise<number> }> {
  const gate = new ThreadLatch();
  const result = pool.run('hold', gate.name);
  await gate.began;
  return { gate, result };
}

function waitUntilReady(pool: Pool<TestJobs>): Promise<void> {
  return until(() => pool.state.threads > 0);
}

const isUnavailable = (reason: RegExp) => (cause: unknown) => {
  assert.ok(cause instanceof Failure, String(cause));
  assert.equal(cause.name, 'service_unavailable');
  assert.match(cause.headers['retry-after'] ?? '', /^\d+$/);
  assert.match(cause.message, reason);
  return true;
};

test('a job gives back what it returned', async (t) => {
  const pool = await openPool(t);

  const values = [undefined, null, 'text', { deep: [1, new Uint8Array([2])] }];

  for (const value of values) assert.deepEqual(await pool.run('echo', value), value);
});

test('jobs spread over the threads', async (t) => {
  const pool = await openPool(t, { threads: 2 });

  const held = [await holdThread(pool), await holdThread(pool)];
  for (const { gate } of held) gate.open();

  const threads = await Promise.all(held.map(({ result }) => result));
  assert.notEqual(threads[0], threads[1]);
});

test('a thread that is busy in one lane takes jobs of another', async (t) => {
  const pool = await openPool(t);
  const { gate, result } = await holdThread(pool);

  assert.equal(await pool.run('echo', 'meanwhile'), 'meanwhile');

  gate.open();
  await result;
});

test('a job over the limit of its lane waits, first come first served', async (t) => {
  const pool = await openPool(t);
  const { gate } = await holdThread(pool);
  const [second, third] = [new ThreadLatch(), new ThreadLatch()];
  const order: string[] = [];

  const results = [second, third].map(async ({ name }) => {
    await pool.run('hold', name);
    order.push(name);
  });
  assert.deepEqual(pool.state.lanes['slow'], { queued: 2, running: 1, estimatedWaitMs: 0 });
  assert.deepEqual(await pool.run('whatBegan', undefined), [gate.name]);
  gate.open();
  await second.began;
  second.open();
  await third.began;
  third.open();

  await Promise.all(results);
  assert.deepEqual(order, [second.name, third.name]);
});

for (const queueMax of [0, 1, 3]) {
  test(`with ${queueMax} waiting of ${queueMax} allowed, the next job is refused`, async (t) => {
    const pool = await openPool(t, { slow: { queueMax } });
    const { gate, result } = await holdThread(pool);

    const gates = Array.from({ length: queueMax }, () => new ThreadLatch());
    const held = gates.map(({ name }) => pool.run('hold', name));
    await assert.rejects(pool.run('hold', 'one too many'), isUnavailable(/the queue is full/));

    assert.equal(pool.state.queued, queueMax);
    gate.open();
    for (const next of gates) {
      await next.began;
      next.open();
    }
    await Promise.all([result, ...held]);
    assert.equal(pool.state.running, 0);
  });
}

test('a job that would wait too long is refused, with the wait as the time to return', async (t) => {
  let now = 0;
  const pool = await openPool(t, { monotonicClock: () => now, slow: { waitMaxMs: 2500 } });
  const first = await holdThread(pool);
  now += 2000; // So a job takes 2 s.
  first.gate.open();
  await first.result;
  const { gate } = await holdThread(pool);
  const gates = [new ThreadLatch(), new ThreadLatch()];

  assert.equal(pool.state.estimatedWaitMs, 0);
  const held = gates.map(({ name }) => pool.run('hold', name)); // At 0 s, and at 2 s by estimate.
  assert.equal(pool.state.estimatedWaitMs, 4000);
  await assert.rejects(pool.run('hold', 'at 4 s'), (cause) => {
    assert.ok(isUnavailable(/the wait would be too long/)(cause));
    assert.equal((cause as Failure).headers['retry-after'], '4');
    return true;
  });

  gate.open();
  for (const next of gates) {
    await next.began;
    next.open();
  }
  await Promise.all(held);
});

test('one owner cannot fill the queue', async (t) => {
  const pool = await openPool(t, { slow: { perOwnerMax: 1 } });
  const { gate } = await holdThread(pool);
  const [mine, yours] = [new ThreadLatch(), new ThreadLatch()];

  const held = [
    pool.run('hold', mine.name, { owner: 'me' }),
    pool.run('hold', yours.name, { owner: 'you' }),
  ];
  await assert.rejects(
    pool.run('hold', 'mine too', { owner: 'me' }),
    isUnavailable(/of this client are queued/),
  );
  gate.open();
  await mine.began;
  const again = new ThreadLatch(); // What has started is not counted any more.
  held.push(pool.run('hold', again.name, { owner: 'me' }));

  for (const next of [mine, yours, again]) {
    await next.began;
    next.open();
  }
  await Promise.all(held);
});

test('a job whose caller leaves while it waits never begins', async (t) => {
  const pool = await openPool(t, { slow: { perOwnerMax: 1 } });
  const { gate, result } = await holdThread(pool);
  const caller = new AbortController();
  const reason = new Error('gone');

  const left = pool.run('hold', 'left', { signal: caller.signal, owner: 'me' });
  caller.abort(reason);

  await assert.rejects(left, (cause) => cause === reason);
  assert.equal(pool.state.queued, 0);
  const next = new ThreadLatch();
  const stayed = pool.run('hold', next.name, { owner: 'me' }); // The share is free again.
  gate.open();
  await next.began;
  next.open();
  await Promise.all([result, stayed]);
  assert.deepEqual(await pool.run('whatBegan', undefined), [gate.name, next.name]);
});

test('a job whose caller has left before is refused with the reason', async (t) => {
  const pool = await openPool(t);

  await assert.rejects(pool.run('hold', 'left', { signal: AbortSignal.abort() }), {
    name: 'AbortError',
  });

  assert.deepEqual(await pool.run('whatBegan', undefined), []);
});

test('a job that has begun keeps its place to the end, even when its caller leaves', async (t) => {
  const pool = await openPool(t);
  const gate = new ThreadLatch();
  const caller = new AbortController();
  const result = pool.run('hold', gate.name, { signal: caller.signal });
  await gate.began;

  caller.abort();

  const next = new ThreadLatch();
  const waiting = pool.run('hold', next.name);
  assert.deepEqual(pool.state.lanes['slow'], { queued: 1, running: 1, estimatedWaitMs: 0 });
  gate.open();
  assert.equal(typeof (await result), 'number');
  await next.began;
  next.open();
  await waiting;
});

test('a job that has waited and begun still answers a caller that leaves', async (t) => {
  const pool = await openPool(t);
  const { gate, result } = await holdThread(pool);
  const caller = new AbortController();
  const next = new ThreadLatch();
  const waited = pool.run('hold', next.name, { signal: caller.signal });
  gate.open();
  await result;
  await next.began;

  caller.abort();
  next.open();

  assert.equal(typeof (await waited), 'number');
});

test('what a job throws comes back as the cause of a defect, and the thread lives on', async (t) => {
  const pool = await openPool(t);

  await assert.rejects(pool.run('fail', 'broken'), (cause) => {
    assert.ok(cause instanceof Error && !(cause instanceof Failure));
    assert.match(cause.message, /Cannot run job fail/);
    assert.equal((cause.cause as Error).message, 'broken');
    return true;
  });
  await assert.rejects(pool.run('failOddly', undefined), { message: /Cannot run job failOddly/ });

  assert.equal(await pool.run('echo', 'alive'), 'alive');
  assert.equal(pool.state.crashes, 0);
});

test('what cannot be sent, there or back, is a defect and blocks nothing', async (t) => {
  const pool = await openPool(t);

  await assert.rejects(
    pool.run('echo', () => {}),
    { message: /its input cannot be sent/ },
  );
  await assert.rejects(pool.run('returnFunction', undefined), { message: /Cannot run job/ });

  assert.equal(pool.state.running, 0);
  assert.equal(await pool.run('echo', 'alive'), 'alive');
});

for (const [how, die] of [
  ['of an error', (pool: Pool<TestJobs>) => pool.run('die', 'nobody caught this')],
  ['by process.exit', (pool: Pool<TestJobs>) => pool.run('exit', 0)],
] as const) {
  test(`a thread that dies ${how} costs its started jobs, and is replaced`, async (t) => {
    const pool = await openPool(t);
    const before = await pool.run('whoAmI', undefined);

    const lost = die(pool);
    const gate = new ThreadLatch();
    const waiting = pool.run('hold', gate.name);
    await assert.rejects(lost, isUnavailable(/its worker thread exited/));

    await gate.began;
    gate.open();
    assert.notEqual(await waiting, before);
    const { threads, crashes, healthy, running } = pool.state;
    assert.deepEqual(
      { threads, crashes, healthy, running },
      {
        threads: 1,
        crashes: 1,
        healthy: true,
        running: 0,
      },
    );
  });
}

test('more than 5 deaths within a minute are unhealthy, until the minute is over', async (t) => {
  let now = 0;
  const pool = await openPool(t, { monotonicClock: () => now });

  for (const count of [1, 2, 3, 4, 5]) {
    await assert.rejects(
      pool.run('die', `number ${count}`),
      isUnavailable(/its worker thread exited/),
    );
    await pool.run('echo', 'replaced');
  }
  assert.equal(pool.state.healthy, true);
  now += 59_999;
  await assert.rejects(pool.run('die', 'number 6'), isUnavailable(/its worker thread exited/));
  await waitUntilReady(pool);
  assert.equal(pool.state.healthy, false);
  now += 1;
  assert.equal(pool.state.healthy, true);
  assert.equal(pool.state.crashes, 6);
});

test('a job that runs for more than 30 s is unhealthy', async (t) => {
  let now = 0;
  const pool = await openPool(t, { monotonicClock: () => now });
  const { gate, result } = await holdThread(pool);

  now += 30_000;
  assert.equal(pool.state.healthy, true);
  now += 1;
  assert.equal(pool.state.healthy, false);
  gate.open();
  await result;
  assert.equal(pool.state.healthy, true);
});

test('a pool whose threads cannot load does not open', async () => {
  const loadsBefore = new Int32Array(new SharedArrayBuffer(4));
  loadsBefore[0] = 1; // The other one does not.
  const lanes = { slow, quick };

  for (const data of [{ loadsBefore }, () => 'cannot be cloned']) {
    await assert.rejects(
      Pool.open<TestJobs>({ entry, threads: 2, lanes, log: silentLogger, workerData: data }),
      (cause) => {
        assert.match(String(cause), /a thread did not load/);
        assert.ok((cause as Error).cause instanceof Error);
        return true;
      },
    );
  }
  assert.equal(loadsBefore[0], -1); // Two were started, and no more.
});

test('a module that never serves does not open either', async () => {
  await assert.rejects(
    Pool.open<TestJobs>({
      entry: new URL('./lane', import.meta.url),
      threads: 1,
      lanes: { slow, quick },
      log: silentLogger,
    }),
    { message: /a thread did not load/ },
  );
});

test('when threads no longer load, nobody is left waiting', async (t) => {
  const loadsBefore = new Int32Array(new SharedArrayBuffer(4));
  loadsBefore[0] = 1;
  const pool = await openPool(t, { workerData: { loadsBefore }, monotonicClock: () => 0 }); // All in a minute.

  const lost = pool.run('die', 'the only one that loads');
  const waiting = pool.run('hold', 'never');
  await assert.rejects(lost, isUnavailable(/its worker thread exited/));

  await assert.rejects(waiting, isUnavailable(/no thread is running/));
  await assert.rejects(pool.run('echo', 'later'), isUnavailable(/no thread is running/));
  assert.equal(pool.state.healthy, false);
  assert.equal(pool.state.crashes, 6);

  loadsBefore[0] = 1; // Whatever it was, it is mended.
  await waitUntilReady(pool);
  assert.equal(await pool.run('echo', 'back'), 'back');
});

test('a closing pool ends what has begun and refuses the rest', async (t) => {
  const pool = await openPool(t);
  const { gate, result } = await holdThread(pool);
  const waiting = pool.run('hold', 'never');

  const closed = pool.close();

  await assert.rejects(waiting, isUnavailable(/stopping/));
  await assert.rejects(pool.run('echo', 'late'), isUnavailable(/stopping/));
  gate.open();
  assert.equal(typeof (await result), 'number');
  await closed;
  await pool.close();
  await assert.rejects(pool.run('echo', 'too late'), isUnavailable(/stopping/));
  assert.equal(pool.state.healthy, false);
});

test('a pool closes while a dead thread waits to be replaced', async (t) => {
  const pool = await openPool(t, { backOffMs: 10_000 });
  await assert.rejects(pool.run('die', 'now'), isUnavailable(/its worker thread exited/));

  const waiting = pool.run('echo', 'never');
  await Promise.all([assert.rejects(waiting, isUnavailable(/stopping/)), pool.close()]);
});

test('a job is in one lane', async () => {
  const lanes = { slow, alsoSlow: slow };

  await assert.rejects(Pool.open<TestJobs>({ entry, threads: 1, lanes, log: silentLogger }), {
    message: /hold is in two lanes/,
  });
});

test('a job in no lane is a defect', async (t) => {
  const pool = await openPool(t, { lanes: { slow } });

  await assert.rejects(pool.run('echo', 1), { message: /it is in no lane/ });
});
