import { setTimeout as wait } from 'node:timers/promises';

const timeoutMs = 60_000;

/**
 * Settles when the fact holds, which is looked at again and again. Rejects after a minute, naming
 * it: a test that waits in vain fails then, and nothing of it goes on after its end.
 */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited a minute in vain for ${condition}`);
    await wait(2);
  }
}
