// Loaded by `--import` into every process that is measured: answers what it has used. The same few
// lines for Herald and for what it is compared with, and nothing in Herald itself knows of them.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { isMainThread } from 'node:worker_threads';

const resolutionMs = 5;
const samplingMicros = 500;
const tasks = '/proc/self/task';

/** To the kernel all threads of Node 20 are called `node`; these names are for who reads `/proc`. */
function nameThread(task, name) {
  try {
    writeFileSync(`${task}/comm`, name.slice(0, 15));
  } catch {
    // No such thing here: what reads the names is for Linux.
  }
}

/** Node starts them in this order: the main thread, one for V8's delayed tasks, four that help V8. */
function nameHelpers() {
  const ids = readdirSync(tasks).map(Number);
  for (const id of ids.sort((a, b) => a - b).slice(2, 6)) {
    const task = `${tasks}/${id}`;
    if (readFileSync(`${task}/comm`, 'utf8') === 'node\n') nameThread(task, 'V8Worker');
  }
}

if (isMainThread && process.send !== undefined) {
  if (process.platform === 'linux') nameHelpers();
  const delay = monitorEventLoopDelay({ resolution: resolutionMs });
  // The histogram holds the distance between two ticks: what is over the resolution is delay.
  const delayMs = (percent) => Math.max(0, delay.percentile(percent) / 1e6 - resolutionMs);
  let session;
  const answers = {
    usage() {
      const { user, system } = process.cpuUsage();
      const { rss, heapUsed, external } = process.memoryUsage();
      return { cpuMicros: user + system, rssBytes: rss, heapBytes: heapUsed, external };
    },
    collect() {
      for (let round = 0; round < 3; round += 1) globalThis.gc?.();
      return null;
    },
    watchDelay() {
      delay.reset();
      delay.enable();
      return null;
    },
    delay() {
      delay.disable();
      return { p50: delayMs(50), p99: delayMs(99), max: delayMs(100) };
    },
    async startProfile() {
      const { Session } = await import('node:inspector/promises');
      session = new Session();
      session.connect();
      await session.post('Profiler.enable');
      await session.post('Profiler.setSamplingInterval', { interval: samplingMicros });
      await session.post('Profiler.start');
      return null;
    },
    /** Without the list of samples: each node has its count of them. */
    async stopProfile() {
      const { profile } = await session.post('Profiler.stop');
      session.disconnect();
      return profile.nodes;
    },
  };
  process.on('message', async ({ id, probe }) => {
    if (probe !== undefined) process.send({ id, answer: await answers[probe]() });
  });
  process.on('disconnect', () => process.exit(1)); // Whoever measures is gone: leave nothing behind.
} else if (!isMainThread) {
  nameThread('/proc/thread-self', basename(process.argv[1] ?? 'worker', '.js'));
}
