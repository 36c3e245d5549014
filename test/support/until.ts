import { setTimeout as wait } from 'node:timers/promises';

const patienceMs = 60_000;

/**
 * Settles when the fact holds, which is looked at again and again. Rejects after a minute, naming
 * it: a test that waits in vain fails then, and nothing of it goes on after its end.
 */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + patienceMs;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`waited a minute in vain for ${isSo}`);
    await wait(2);
  }
}
