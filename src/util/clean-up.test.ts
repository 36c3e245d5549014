import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { silentLogger } from '../logging/logger.js';
import { CleanUp } from './clean-up.js';

/** Creates a promise and the function that resolves it. */
function createLatch() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

test('clean-up tasks run periodically, even after one of them failed', async () => {
  const lines: Record<string, unknown>[] = [];
  const { open, opened } = createLatch();
  let runs = 0;
  const tasks = {
    broken: async () => {
      throw new Error('the disk is full');
    },
    counted: async () => {
      runs += 1;
      if (runs === 3) open();
      return runs;
    },
  };
  const keepAlive = setInterval(() => {}, 1000); // The clean-up timer does not keep the process alive.

  const cleanUp = CleanUp.start({ tasks, intervalMs: 1, log: collectingLog(lines) });
  await opened;
  await cleanUp.close();
  await cleanUp.close();
  clearInterval(keepAlive);

  assert.ok(lines.filter(({ level, task }) => level === 'warn' && task === 'broken').length >= 3);
  assert.ok(lines.some(({ level, rows }) => level === 'debug' && rows === 3));
});

test('a task whose batch was full continues in the same run until a batch is not full', async () => {
  const { open, opened } = createLatch();
  const rowsPerBatch = [500, 500, 1000, 499];
  const calls: string[] = [];
  const tasks = {
    many: async () => {
      calls.push('many');
      return rowsPerBatch.shift() ?? 0;
    },
    few: async () => {
      calls.push('few');
      if (rowsPerBatch.length === 0) open();
      return 499;
    },
  };
  const keepAlive = setInterval(() => {}, 1000);

  const cleanUp = CleanUp.start({ tasks, intervalMs: 1, log: silentLogger });
  await opened;
  await cleanUp.close();
  clearInterval(keepAlive);

  assert.deepEqual(calls.slice(0, 5), ['many', 'few', 'many', 'many', 'many']);
});

test('a run that reaches 1000 batches ends and is logged as behind, and the next run follows at once', async () => {
  const lines: Record<string, unknown>[] = [];
  const { open, opened } = createLatch();
  let [batches, runs] = [0, 0];
  const tasks = {
    endless: async () => {
      batches += 1;
      return 500;
    },
    other: async () => {
      runs += 1;
      if (runs === 2) open();
      return 0;
    },
  };
  const keepAlive = setInterval(() => {}, 1000);

  const cleanUp = CleanUp.start({ tasks, intervalMs: 1, log: collectingLog(lines) });
  await opened;
  await cleanUp.close();
  clearInterval(keepAlive);

  assert.equal(batches, 1001); // 1000 in the first run, and one in the second before `close`.
  const behind = lines.filter(({ phrase }) => phrase === 'clean-up is behind');
  assert.deepEqual(
    behind.map(({ level, tasks: names }) => [level, names]),
    [['warn', ['endless']]],
  );
});

test('no task runs while clean-up is paused, which is logged once per pause', async () => {
  const lines: Record<string, unknown>[] = [];
  const { open, opened } = createLatch();
  const steps: string[] = [];
  const pauses = [true, true, false, true, false];
  const isPaused = async () => {
    const isPausedNow = pauses.shift() ?? false;
    if (isPausedNow) steps.push('paused');
    return isPausedNow;
  };
  const tasks = {
    counted: async () => {
      steps.push('run');
      if (pauses.length === 0) open();
      return 0;
    },
  };
  const keepAlive = setInterval(() => {}, 1000);

  const cleanUp = CleanUp.start({ tasks, intervalMs: 1, log: collectingLog(lines), isPaused });
  await opened;
  await cleanUp.close();
  clearInterval(keepAlive);

  assert.deepEqual(steps.slice(0, 5), ['paused', 'paused', 'run', 'paused', 'run']);
  const paused = lines.filter(({ phrase }) => phrase === 'clean-up is paused');
  assert.deepEqual(
    paused.map(({ level }) => level),
    ['warn', 'warn'],
  );
});

test('clean-up that is paused during a run starts no further batch', async () => {
  const { open, opened } = createLatch();
  let batches = 0;
  const tasks = {
    endless: async () => {
      batches += 1;
      return 500;
    },
  };
  const isPaused = async () => {
    if (batches >= 3) open();
    return batches >= 3;
  };
  const keepAlive = setInterval(() => {}, 1000);

  const cleanUp = CleanUp.start({ tasks, intervalMs: 1, log: silentLogger, isPaused });
  await opened;
  await cleanUp.close();
  clearInterval(keepAlive);

  assert.equal(batches, 3);
});

test('close() waits for the running task and starts no other', async () => {
  const [started, finish] = [createLatch(), createLatch()];
  const done: string[] = [];
  const tasks = {
    slow: async () => {
      started.open();
      await finish.opened;
      done.push('slow');
      return 0;
    },
    next: async () => done.push('next'),
  };
  const keepAlive = setInterval(() => {}, 1000);
  const cleanUp = CleanUp.start({ tasks, intervalMs: 1, log: silentLogger });
  await started.opened;

  let isClosed = false;
  const closing = cleanUp.close().then(() => {
    isClosed = true;
  });
  await new Promise(setImmediate);
  const wasClosed = isClosed;
  finish.open();
  await closing;
  clearInterval(keepAlive);

  assert.equal(wasClosed, false);
  assert.deepEqual(done, ['slow']);
});
