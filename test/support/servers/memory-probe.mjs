// Loaded by `--import` into a process whose memory is measured: on SIGUSR2 the process collects its
// garbage and prints its resident memory to standard output.
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  process.on('SIGUSR2', async () => {
    for (let round = 0; round < 3; round += 1) {
      globalThis.gc();
      await new Promise(setImmediate); // Node frees the bytes of collected Buffers one iteration later.
    }
    console.log(JSON.stringify({ msg: 'resident', bytes: process.memoryUsage.rss() }));
  });
}
