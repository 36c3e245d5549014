import { Child, type MeasurableServer } from './child.js';

/** Resources that a server used while it did a piece of work. */
export interface ServerUsage {
  /** CPU time of all threads. */
  readonly cpuMicrosPerOperation: number;
  readonly operations: number;
  readonly seconds: number;
  /** Event loop delay. `NaN` for a server that is not a `Child`. */
  readonly loopDelayP99Ms: number;
}

/** Measures a server during `work`, which returns the number of operations. */
export async function measureServer(
  server: MeasurableServer,
  work: () => Promise<number>,
): Promise<ServerUsage> {
  const nodeChild = server instanceof Child ? server : undefined;
  await nodeChild?.startDelayMonitor();
  const startedAt = performance.now();
  const before = await server.usage();
  const operations = await work();
  const { cpuMicros } = await server.usage();
  const seconds = (performance.now() - startedAt) / 1000;
  const loopDelayP99Ms = (await nodeChild?.stopDelayMonitor())?.p99Ms ?? Number.NaN;
  const cpuMicrosPerOperation = (cpuMicros - before.cpuMicros) / operations;
  return { cpuMicrosPerOperation, operations, seconds, loopDelayP99Ms };
}
