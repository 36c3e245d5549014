import { setTimeout as wait } from 'node:timers/promises';

const timeoutMs = 60_000;

/**
 * Polls until the condition holds. Rejects after a minute with the source text of the condition, so that a
 * stuck test fails by itself and nothing that it started continues after its end.
 */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline)
      throw new Error(`condition not met within a minute: ${condition}`);
    await wait(2);
  }
}
