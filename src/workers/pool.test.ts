import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { BroadcastChannel } from 'node:worker_threads';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { until } from '../../test/support/until.js';
import { withDeadline } from '../../test/support/with-deadline.js';
import { Failure } from '../errors.js';
import { silentLogger } from '../logging/logger.js';
import type { Lane } from './lane.js';
import { Pool, type PoolOptions } from './pool.js';
import { PoolThread } from './pool-thread.js';
import type { TestJobs } from './thread.test.js';

const entry = new URL('./thread.test', import.meta.url);
const slow: Lane<keyof TestJobs> = {
  jobs: ['hold', 'crash', 'exit', 'spin'],
  perThreadMax: 1,
  queueMax: 3,
  waitMaxMs: 60_000,
};
const quick: Lane<keyof TestJobs> = {
  jobs: ['echo', 'whoAmI', 'startedHolds', 'fail', 'failWithUncloneable', 'returnFunction'],
  perThreadMax: 4,
  queueMax: 100,
  waitMaxMs: 60_000,
};

type Changes = Partial<PoolOptions<TestJobs>> & { slow?: Partial<Lane<keyof TestJobs>> };

async function openPool(t: TestContext, { slow: slowChanges, ...changes }: Changes = {}) {
  const pool = await Pool.open<TestJobs>({
    entry,
    threads: 1,
    lanes: { slow: { ...slow, ...slowChanges }, quick },
    log: silentLogger,
    backOffMs: 1,
    ...changes,
  });
  t.after(() => withDeadline(pool.close(), 'the end of close()'));
  const run = pool.run.bind(pool);
  const runInTime: typeof run = (name, ...rest) =>
    withDeadline(run(name, ...rest), `the end of the job ${name}`);
  return Object.assign(pool, { run: runInTime });
}

/** The latch that a `hold` job waits for. */
class ThreadLatch {
  readonly name = `latch ${randomUUID()}`;
  readonly #started: Promise<void>;
  readonly #channel = new BroadcastChannel(this.name);

  constructor() {
    this.#started = new Promise((resolve) => {
      this.#channel.onmessage = () => resolve();
    });
  }

  /** Settles when the job has started on its thread. */
  get started(): Promise<void> {
    return withDeadline(this.#started, 'the start of a job that waits for a latch');
  }

  /** Opens the latch as soon as the job has started, if ever. */
  openOnStart(): void {
    void this.#started.then(() => this.open());
  }

  /** Lets the job return. */
  open(): void {
    this.#channel.postMessage('go on');
    this.close();
  }

  close(): void {
    this.#channel.close();
  }
}

/** Occupies a thread of the pool in the slow lane until the latch is opened. */
async function holdThread(
  pool: Pool<TestJobs>,
): Promise<{ latch: ThreadLatch; result: Promise<number> }> {
  const latch = new ThreadLatch();
  const result = pool.run('hold', latch.name);
  await latch.started;
  return { latch, result };
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

test('run() resolves with the return value of the job', async (t) => {
  const pool = await openPool(t);

  const values = [undefined, null, 'text', { deep: [1, new Uint8Array([2])] }];

  for (const value of values) assert.deepEqual(await pool.run('echo', value), value);
});

test('jobs are distributed over the threads', async (t) => {
  const pool = await openPool(t, { threads: 2 });

  const held = [await holdThread(pool), await holdThread(pool)];
  for (const { latch } of held) latch.open();

  const threads = await Promise.all(held.map(({ result }) => result));
  assert.notEqual(threads[0], threads[1]);
});

test('a thread that is busy in one lane takes jobs of another', async (t) => {
  const pool = await openPool(t);
  const { latch, result } = await holdThread(pool);

  assert.equal(await pool.run('echo', 'meanwhile'), 'meanwhile');

  latch.open();
  await result;
});

test('jobs over the limit of their lane are queued in FIFO order', async (t) => {
  const pool = await openPool(t);
  const { latch } = await holdThread(pool);
  const [second, third] = [new ThreadLatch(), new ThreadLatch()];
  const order: string[] = [];

  const results = [second, third].map(async ({ name }) => {
    await pool.run('hold', name);
    order.push(name);
  });
  assert.deepEqual(pool.state.lanes['slow'], { queued: 2, running: 1, estimatedWaitMs: 0 });
  assert.deepEqual(await pool.run('startedHolds', undefined), [latch.name]);
  latch.open();
  await second.started;
  second.open();
  await third.started;
  third.open();

  await Promise.all(results);
  assert.deepEqual(order, [second.name, third.name]);
});

for (const queueMax of [0, 1, 3]) {
  test(`with ${queueMax} of ${queueMax} jobs queued, the next job is refused`, async (t) => {
    const pool = await openPool(t, { slow: { queueMax } });
    const { latch, result } = await holdThread(pool);

    const latches = Array.from({ length: queueMax }, () => new ThreadLatch());
    const held = latches.map(({ name }) => pool.run('hold', name));
    await assert.rejects(pool.run('hold', 'one too many'), isUnavailable(/the queue is full/));

    assert.equal(pool.state.queued, queueMax);
    latch.open();
    for (const next of latches) {
      await next.started;
      next.open();
    }
    await Promise.all([result, ...held]);
    assert.equal(pool.state.running, 0);
  });
}

test('a job that would wait too long is refused, with the estimated wait as Retry-After', async (t) => {
  let now = 0;
  const pool = await openPool(t, { monotonicClock: () => now, slow: { waitMaxMs: 2500 } });
  const first = await holdThread(pool);
  now += 2000; // The average service time is now 2 s.
  first.latch.open();
  await first.result;
  const { latch } = await holdThread(pool);
  const latches = [new ThreadLatch(), new ThreadLatch()];

  assert.equal(pool.state.estimatedWaitMs, 0);
  const held = latches.map(({ name }) => pool.run('hold', name)); // Estimated to start at 0 s and at 2 s.
  assert.equal(pool.state.estimatedWaitMs, 4000);
  await assert.rejects(pool.run('hold', 'at 4 s'), (cause) => {
    assert.ok(isUnavailable(/the wait would be too long/)(cause));
    assert.equal((cause as Failure).headers['retry-after'], '4');
    return true;
  });

  latch.open();
  for (const next of latches) {
    await next.started;
    next.open();
  }
  await Promise.all(held);
});

test('one owner cannot fill the queue', async (t) => {
  const pool = await openPool(t, { slow: { perOwnerMax: 1 } });
  const { latch } = await holdThread(pool);
  const [mine, yours] = [new ThreadLatch(), new ThreadLatch()];

  const held = [
    pool.run('hold', mine.name, { owner: 'me' }),
    pool.run('hold', yours.name, { owner: 'you' }),
  ];
  await assert.rejects(
    pool.run('hold', 'mine too', { owner: 'me' }),
    isUnavailable(/of this client are queued/),
  );
  latch.open();
  await mine.started;
  const again = new ThreadLatch(); // A started job does not count.
  held.push(pool.run('hold', again.name, { owner: 'me' }));

  for (const next of [mine, yours, again]) {
    await next.started;
    next.open();
  }
  await Promise.all(held);
});

test('owners take turns, so many queued jobs of one do not delay the others', async (t) => {
  const pool = await openPool(t, { slow: { queueMax: 10 } });
  const { latch, result } = await holdThread(pool);
  const order: string[] = [];
  const results: Promise<void>[] = [];
  const latches: ThreadLatch[] = [];
  const enqueue = (owner: string | undefined) => {
    const next = new ThreadLatch();
    latches.push(next);
    const options = owner === undefined ? {} : { owner };
    const running = pool.run('hold', next.name, options).then(() => void order.push(`${owner}`));
    results.push(running);
    next.openOnStart();
  };

  for (const owner of ['me', 'me', 'me', 'you', undefined, 'me', 'you']) enqueue(owner);
  latch.open();
  await Promise.all([result, ...results]);

  assert.deepEqual(order, ['me', 'you', 'undefined', 'me', 'you', 'me', 'me']);
});

test('in a full queue the newest job of the owner with the most jobs makes room for another owner', async (t) => {
  const pool = await openPool(t, { slow: { queueMax: 3, perOwnerMax: 3 } });
  const { latch, result } = await holdThread(pool);
  const enqueue = (owner: string) => {
    const next = new ThreadLatch();
    next.openOnStart();
    return pool.run('hold', next.name, { owner }).then(
      () => 'done',
      ({ message }) => {
        next.close();
        return message;
      },
    );
  };

  const jobs = ['me', 'me', 'me', 'you'].map(enqueue);
  const surplus = ['me', 'you'].map(enqueue); // No other owner would have more jobs than this one.
  const { queued } = pool.state;
  latch.open();
  await result;

  assert.equal(queued, 3);
  const full = 'Cannot answer now: the queue is full';
  assert.deepEqual(await Promise.all(jobs), ['done', 'done', full, 'done']);
  assert.deepEqual(await Promise.all(surplus), [full, full]);
});

test('the estimated wait of an owner excludes jobs of other owners that run after its own', async (t) => {
  let now = 0;
  const slowChanges = { waitMaxMs: 2500, queueMax: 10 };
  const pool = await openPool(t, { monotonicClock: () => now, slow: slowChanges });
  const first = await holdThread(pool);
  now += 1000; // The average service time is now 1 s.
  first.latch.open();
  await first.result;
  const { latch, result } = await holdThread(pool);
  const held: Promise<unknown>[] = [];
  const enqueue = (owner: string) => {
    const next = new ThreadLatch();
    next.openOnStart();
    const running = pool.run('hold', next.name, { owner });
    running.catch(() => next.close());
    return running;
  };

  for (let count = 0; count < 3; count += 1) held.push(enqueue('me'));
  await assert.rejects(enqueue('me'), isUnavailable(/the wait would be too long/));
  held.push(enqueue('you')); // Starts after the first job of the other owner, so at 1 s.
  await assert.rejects(enqueue('you'), isUnavailable(/the wait would be too long/));

  latch.open();
  await Promise.all([result, ...held]);
});

test('a queued job that has waited for too long is refused, and never starts', async (t) => {
  const pool = await openPool(t, { slow: { waitMaxMs: 20 } });
  const { latch, result } = await holdThread(pool);

  const waiting = pool.run('hold', 'too late');

  await assert.rejects(waiting, isUnavailable(/the wait was too long/));
  assert.equal(pool.state.queued, 0);
  latch.open();
  await result;
  assert.deepEqual(await pool.run('startedHolds', undefined), [latch.name]);
});

test('a queued job whose signal aborts never starts', async (t) => {
  const pool = await openPool(t, { slow: { perOwnerMax: 1 } });
  const { latch, result } = await holdThread(pool);
  const caller = new AbortController();
  const reason = new Error('gone');

  const aborted = pool.run('hold', 'left', { signal: caller.signal, owner: 'me' });
  caller.abort(reason);

  await assert.rejects(aborted, (cause) => cause === reason);
  assert.equal(pool.state.queued, 0);
  const next = new ThreadLatch();
  const accepted = pool.run('hold', next.name, { owner: 'me' }); // The aborted job no longer counts.
  latch.open();
  await next.started;
  next.open();
  await Promise.all([result, accepted]);
  assert.deepEqual(await pool.run('startedHolds', undefined), [latch.name, next.name]);
});

test('run() with an aborted signal rejects with its reason', async (t) => {
  const pool = await openPool(t);

  await assert.rejects(pool.run('hold', 'left', { signal: AbortSignal.abort() }), {
    name: 'AbortError',
  });

  assert.deepEqual(await pool.run('startedHolds', undefined), []);
});

test('a running job whose signal aborts still occupies its thread until it ends', async (t) => {
  const pool = await openPool(t);
  const latch = new ThreadLatch();
  const caller = new AbortController();
  const result = pool.run('hold', latch.name, { signal: caller.signal });
  await latch.started;

  caller.abort();

  const next = new ThreadLatch();
  const waiting = pool.run('hold', next.name);
  assert.deepEqual(pool.state.lanes['slow'], { queued: 1, running: 1, estimatedWaitMs: 0 });
  latch.open();
  assert.equal(typeof (await result), 'number');
  await next.started;
  next.open();
  await waiting;
});

test('a job that started after waiting in the queue resolves even when its signal aborts', async (t) => {
  const pool = await openPool(t);
  const { latch, result } = await holdThread(pool);
  const caller = new AbortController();
  const next = new ThreadLatch();
  const waited = pool.run('hold', next.name, { signal: caller.signal });
  latch.open();
  await result;
  await next.started;

  caller.abort();
  next.open();

  assert.equal(typeof (await waited), 'number');
});

test('an error thrown by a job is the cause of the rejection, and the thread continues', async (t) => {
  const pool = await openPool(t);

  await assert.rejects(pool.run('fail', 'broken'), (cause) => {
    assert.ok(cause instanceof Error && !(cause instanceof Failure));
    assert.match(cause.message, /Cannot run job fail/);
    assert.equal((cause.cause as Error).message, 'broken');
    return true;
  });
  await assert.rejects(pool.run('failWithUncloneable', undefined), {
    message: /Cannot run job failWithUncloneable/,
  });

  assert.equal(await pool.run('echo', 'alive'), 'alive');
  assert.equal(pool.state.crashes, 0);
});

test('an input or a result that cannot be cloned rejects the job and does not block the thread', async (t) => {
  const pool = await openPool(t);

  await assert.rejects(
    pool.run('echo', () => {}),
    { message: /its input cannot be sent/ },
  );
  await assert.rejects(pool.run('returnFunction', undefined), { message: /Cannot run job/ });

  assert.equal(pool.state.running, 0);
  assert.equal(await pool.run('echo', 'alive'), 'alive');
});

for (const [how, crash] of [
  ['by an uncaught error', (pool: Pool<TestJobs>) => pool.run('crash', 'uncaught')],
  ['by process.exit', (pool: Pool<TestJobs>) => pool.run('exit', 0)],
] as const) {
  test(`the running jobs of a thread that exits ${how} are rejected, and the thread is replaced`, async (t) => {
    const pool = await openPool(t);
    const before = await pool.run('whoAmI', undefined);

    const lost = crash(pool);
    const latch = new ThreadLatch();
    const waiting = pool.run('hold', latch.name);
    await assert.rejects(lost, isUnavailable(/its worker thread failed/));

    await latch.started;
    latch.open();
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

for (const [how, hang] of [
  ['blocks its event loop', (pool: Pool<TestJobs>) => pool.run('spin', undefined)],
  ['never returns', (pool: Pool<TestJobs>) => pool.run('hold', 'nobody opens this latch')],
] as const) {
  test(`a thread with a job that ${how} is replaced, and the job is rejected`, async (t) => {
    const lines: Record<string, unknown>[] = [];
    const pool = await openPool(t, { jobMsMax: 100, log: collectingLog(lines) });
    const before = await pool.run('whoAmI', undefined);

    const hanging = hang(pool);
    const waiting = pool.run('hold', 'also waits');
    await assert.rejects(hanging, isUnavailable(/its worker thread failed/));

    await assert.rejects(waiting, isUnavailable(/its worker thread failed/)); // It hung, too.
    await waitUntilReady(pool);
    assert.notEqual(await pool.run('whoAmI', undefined), before);
    assert.equal(pool.state.running, 0);
    assert.ok(pool.state.crashes >= 2);
    const line = lines.find(({ phrase }) => phrase === 'worker thread exited');
    assert.match(String(line?.['cause']), /Thread hangs: a job has run for more than 100 ms/);
    await pool.close(); // Settles, because the thread is terminated.
  });
}

test('a thread counts as hung when a job runs from one check to the next', async (t) => {
  const thread = new PoolThread<string>({ entry, workerData: undefined, onResult: () => {} });
  t.after(() => {
    thread.abandon();
    return thread.stop();
  });
  await thread.ready;
  const start = (id: number) => thread.start('job', { id, name: 'echo', input: id });

  start(1);
  assert.equal(thread.isHung(), false);
  thread.finish(1);
  start(2);
  assert.equal(thread.isHung(), false); // Another job than at the check before.
  assert.equal(thread.isHung(), true);
  thread.finish(2);

  assert.equal(thread.isHung(), false);
});

test('close() settles even if a job never returns', async (t) => {
  const pool = await openPool(t, { jobMsMax: 100 });
  const hanging = assert.rejects(pool.run('spin', undefined), isUnavailable(/thread failed/));

  await pool.close();

  await hanging;
});

test('a pool is unhealthy after more than 5 crashes within a minute, until the minute is over', async (t) => {
  let now = 0;
  const pool = await openPool(t, { monotonicClock: () => now });

  for (const count of [1, 2, 3, 4, 5]) {
    await assert.rejects(
      pool.run('crash', `number ${count}`),
      isUnavailable(/its worker thread failed/),
    );
    await pool.run('echo', 'replaced');
  }
  assert.equal(pool.state.healthy, true);
  now += 59_999;
  await assert.rejects(pool.run('crash', 'number 6'), isUnavailable(/its worker thread failed/));
  await waitUntilReady(pool);
  assert.equal(pool.state.healthy, false);
  now += 1;
  assert.equal(pool.state.healthy, true);
  assert.equal(pool.state.crashes, 6);
});

test('a pool is unhealthy while a job runs for more than 30 s', async (t) => {
  let now = 0;
  const pool = await openPool(t, { monotonicClock: () => now });
  const { latch, result } = await holdThread(pool);

  now += 30_000;
  assert.equal(pool.state.healthy, true);
  now += 1;
  assert.equal(pool.state.healthy, false);
  latch.open();
  await result;
  assert.equal(pool.state.healthy, true);
});

test('a pool whose threads cannot load does not open', async () => {
  const loadsLeft = new Int32Array(new SharedArrayBuffer(4));
  loadsLeft[0] = 1; // The second thread fails to load.
  const lanes = { slow, quick };

  for (const data of [{ loadsLeft }, () => 'cannot be cloned']) {
    await assert.rejects(
      Pool.open<TestJobs>({ entry, threads: 2, lanes, log: silentLogger, workerData: data }),
      (cause) => {
        assert.match(String(cause), /a thread did not load/);
        assert.ok((cause as Error).cause instanceof Error);
        return true;
      },
    );
  }
  assert.equal(loadsLeft[0], -1); // Exactly two threads were started.
});

test('a pool does not open when its entry module never calls serveJobs', async () => {
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

test('queued jobs are rejected when replacement threads cannot load', async (t) => {
  const loadsLeft = new Int32Array(new SharedArrayBuffer(4));
  loadsLeft[0] = 1;
  const monotonicClock = () => 0; // All crashes are within a minute.
  const pool = await openPool(t, { workerData: { loadsLeft }, monotonicClock });

  const lost = pool.run('crash', 'the only one that loads');
  const waiting = pool.run('hold', 'never');
  await assert.rejects(lost, isUnavailable(/its worker thread failed/));

  await assert.rejects(waiting, isUnavailable(/no thread is running/));
  await assert.rejects(pool.run('echo', 'later'), isUnavailable(/no thread is running/));
  assert.equal(pool.state.healthy, false);
  assert.equal(pool.state.crashes, 6);

  loadsLeft[0] = 1; // The next thread loads.
  await waitUntilReady(pool);
  assert.equal(await pool.run('echo', 'back'), 'back');
});

test('close() waits for running jobs and rejects queued ones', async (t) => {
  const pool = await openPool(t);
  const { latch, result } = await holdThread(pool);
  const waiting = pool.run('hold', 'never');

  const closed = pool.close();

  await assert.rejects(waiting, isUnavailable(/stopping/));
  await assert.rejects(pool.run('echo', 'late'), isUnavailable(/stopping/));
  latch.open();
  assert.equal(typeof (await result), 'number');
  await closed;
  await pool.close();
  await assert.rejects(pool.run('echo', 'too late'), isUnavailable(/stopping/));
  assert.equal(pool.state.healthy, false);
});

test('a pool without threads is unhealthy, and close() settles while a crashed thread waits for its replacement', async (t) => {
  const timersBefore = countTimers();
  const pool = await openPool(t, { backOffMs: 10_000 });
  await assert.rejects(pool.run('crash', 'now'), isUnavailable(/its worker thread failed/));

  assert.equal(pool.state.healthy, false);
  const waiting = pool.run('echo', 'never');
  await Promise.all([assert.rejects(waiting, isUnavailable(/stopping/)), pool.close()]);

  assert.equal(countTimers(), timersBefore); // The thread is not replaced any more.
});

test('a pool does not open when a job is in two lanes', async () => {
  const lanes = { slow, alsoSlow: slow };

  await assert.rejects(Pool.open<TestJobs>({ entry, threads: 1, lanes, log: silentLogger }), {
    message: /hold is in two lanes/,
  });
});

test('run() rejects a job that is in no lane', async (t) => {
  const pool = await openPool(t, { lanes: { slow } });

  await assert.rejects(pool.run('echo', 1), { message: /it is in no lane/ });
});

/** Returns the number of timers that keep this process alive. */
function countTimers(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
}
