import { fileURLToPath } from 'node:url';
import { type Core, loadCore } from '../machine.js';
import { Child } from '../process/child.js';
import type { Http1LoadPlan, Http1LoadResult } from './http1-load.js';
import type { LoopPlan, LoopResult, PublishPlan } from './requests.js';
import type { StreamLoadCount, StreamLoadPlan } from './stream-load.js';

const processScript = fileURLToPath(new URL('./process.ts', import.meta.url));

/** Above this share of a core, the load generator is the bottleneck instead of the server. */
export const busyShareMax = 0.9;

/** A load generator process. By default it runs on a core without a server. */
export class LoadGenerator {
  readonly child: Child;

  private constructor(child: Child) {
    this.child = child;
  }

  static async start(core: Core = loadCore): Promise<LoadGenerator> {
    const args = [processScript];
    return new LoadGenerator(await Child.start({ args, core, readyPattern: /load ready/ }));
  }

  /**
   * Opens streams under a name, by which the other methods refer to them. Another call with the same
   * name adds streams.
   */
  async openStreams(name: string, plan: StreamLoadPlan): Promise<void> {
    await this.child.ask('openStreams', { name, plan });
  }

  /**
   * Resolves when the streams of this name together have received `eventCount` events since the last
   * reset. Rejects after two minutes.
   */
  async waitForEvents(name: string, eventCount: number): Promise<void> {
    await this.child.ask('waitForEvents', { name, eventCount });
  }

  /**
   * Compares the received events with the expected ones: for each stream `eventsPerStream` events with
   * consecutive numbers from `firstNumber`.
   */
  count(
    name: string,
    { firstNumber, eventsPerStream }: { firstNumber: number; eventsPerStream: number },
  ): Promise<StreamLoadCount> {
    // The sum of the numbers that each stream should have received.
    const sum = (eventsPerStream * (2 * firstNumber + eventsPerStream - 1)) / 2;
    return this.child.ask('count', { name, eventsPerStream, sum }) as Promise<StreamLoadCount>;
  }

  async reset(name: string): Promise<void> {
    await this.child.ask('reset', { name });
  }

  async closeStreams(name: string): Promise<void> {
    await this.child.ask('closeStreams', { name });
  }

  runLoop(plan: LoopPlan): Promise<LoopResult> {
    return this.child.ask('runLoop', plan) as Promise<LoopResult>;
  }

  runHttp1Load(plan: Http1LoadPlan): Promise<Http1LoadResult> {
    return this.child.ask('http1Load', plan) as Promise<Http1LoadResult>;
  }

  publish(plan: PublishPlan): Promise<{ refusedCount: number; seconds: number }> {
    return this.child.ask('publish', plan) as Promise<{ refusedCount: number; seconds: number }>;
  }

  /** Runs `work` and returns the share of a core that the load generator used meanwhile. */
  async measureBusyShare(work: () => Promise<unknown>): Promise<number> {
    const startedAt = performance.now();
    const before = await this.child.usage();
    await work();
    const { cpuMicros } = await this.child.usage();
    return (cpuMicros - before.cpuMicros) / 1000 / (performance.now() - startedAt);
  }

  stop(): Promise<void> {
    return this.child.stop();
  }
}
