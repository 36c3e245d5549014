import { Worker, type WorkerOptions } from 'node:worker_threads';

/**
 * Starts a worker thread on a module given without its extension, such as
 * `new URL('./writer-thread', import.meta.url)`. The extension is `.js` in a build and `.ts` in the
 * source tree.
 *
 * `tsx` does not apply to the first file of a thread, so in the source tree the first file is a small
 * module that registers `tsx` and then imports the entry module. That thread does not inherit the options of the
 * process, because `--import tsx` alone takes longer than the thread's own start.
 */
export function startThread(entry: URL, options: WorkerOptions = {}): Worker {
  if (import.meta.url.endsWith('.js')) return new Worker(new URL(`${entry.href}.js`), options);
  return new Worker(new URL('./source-thread.mjs', import.meta.url), {
    ...options,
    execArgv: [],
    argv: [`${entry.href}.ts`],
  });
}
