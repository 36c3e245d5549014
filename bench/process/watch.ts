import { Child, type Measured } from './child.js';

/** What a server spent on a measured piece of work. */
export interface Watched {
  /** CPU of all its threads, in microseconds per operation. */
  readonly cpu: number;
  readonly operations: number;
  readonly seconds: number;
  /** Event loop delay, p99, ms. `NaN` for a server that is not a `Child`. */
  readonly delay: number;
}

/** Measures a server during `work`, which returns the number of operations. */
export async function watch(child: Measured, work: () => Promise<number>): Promise<Watched> {
  const node = child instanceof Child ? child : undefined;
  await node?.watchDelay();
  const startedAt = performance.now();
  const before = await child.usage();
  const operations = await work();
  const { cpuMicros } = await child.usage();
  const seconds = (performance.now() - startedAt) / 1000;
  const delay = (await node?.delay())?.p99 ?? Number.NaN;
  return { cpu: (cpuMicros - before.cpuMicros) / operations, operations, seconds, delay };
}
