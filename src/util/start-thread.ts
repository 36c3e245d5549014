import { Worker, type WorkerOptions } from 'node:worker_threads';

/**
 * Starts a worker thread on a module given without its ending, such as
 * `new URL('./writer-thread', import.meta.url)`: `.js` as built, `.ts` as in the source tree.
 *
 * `tsx` does not reach the first file of a thread, so from source that file is a small module
 * which registers `tsx` and then imports the real entry.
 */
export function startThread(entry: URL, options: WorkerOptions = {}): Worker {
  if (import.meta.url.endsWith('.js')) return new Worker(new URL(`${entry.href}.js`), options);
  return new Worker(new URL('./source-thread.mjs', import.meta.url), {
    ...options,
    argv: [`${entry.href}.ts`],
  });
}
