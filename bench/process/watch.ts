import { Child, type Measured } from './child.js';

/** What a server spent while something was done with it. */
export interface Watched {
  /** CPU of all its threads, microseconds an operation. */
  readonly cpu: number;
  readonly operations: number;
  readonly seconds: number;
  /** Of its event loop, p99, ms. Not a number for what has none that can be asked. */
  readonly delay: number;
}

/** `work` answers how many operations it did. */
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
