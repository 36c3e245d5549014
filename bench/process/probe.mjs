// Reports the resource usage of the process that loads it with `--import`: a measured server or a load
// generator. Herald and the Node servers that it is compared with run the same probe. Herald's own code
// does not depend on the probe.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { isMainThread } from 'node:worker_threads';

const resolutionMs = 5;
const samplingMicros = 500;
const tasks = '/proc/self/task';

/**
 * Names a thread for readers of `/proc`. In Node 20 the kernel's name of every thread is `node`.
 */
function nameThread(task, name) {
  try {
    writeFileSync(`${task}/comm`, name.slice(0, 15));
  } catch {
    // Not Linux. Only Linux-specific code reads the names.
  }
}

/**
 * Names V8's helper threads. Node starts threads in this order: the main thread, one for V8's delayed
 * tasks, four helper threads of V8.
 */
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
  // The histogram contains the time between two ticks; the excess over the resolution is the delay.
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
    startDelayMonitor() {
      delay.reset();
      delay.enable();
      return null;
    },
    stopDelayMonitor() {
      delay.disable();
      return { p50Ms: delayMs(50), p99Ms: delayMs(99), maxMs: delayMs(100) };
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
    /**
     * Returns the nodes without the list of samples, because each node contains its sample count.
     */
    async stopProfile() {
      const { profile } = await session.post('Profiler.stop');
      session.disconnect();
      return profile.nodes;
    },
  };
  process.on('message', async ({ id, probe }) => {
    if (probe !== undefined) process.send({ id, answer: await answers[probe]() });
  });
  process.on('disconnect', () => process.exit(1)); // The benchmark has ended.
} else if (!isMainThread) {
  nameThread('/proc/thread-self', basename(process.argv[1] ?? 'worker', '.js'));
}
