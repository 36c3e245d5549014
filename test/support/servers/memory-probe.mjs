// Loaded by `--import` into a process whose memory is judged: on SIGUSR2 it collects its garbage and
// says on standard output what is resident then.
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  process.on('SIGUSR2', async () => {
    for (let round = 0; round < 3; round += 1) {
      globalThis.gc();
      await new Promise(setImmediate); // The bytes of dead Buffers go a turn after the Buffers.
    }
    console.log(JSON.stringify({ msg: 'resident', bytes: process.memoryUsage.rss() }));
  });
}
