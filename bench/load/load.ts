import { fileURLToPath } from 'node:url';
import { type Core, loadCore } from '../machine.js';
import { Child } from '../process/child.js';
import type { Http1LoadPlan, Http1LoadResult } from './http1-load.js';
import type { LoopPlan, LoopResult, PublishPlan } from './requests.js';
import type { StreamLoadCount, StreamLoadPlan } from './stream-load.js';

const entry = fileURLToPath(new URL('./process.ts', import.meta.url));

/** Above this share of a core the load generator, not the server, is the bottleneck. */
const busyMax = 0.9;

/** Client of a load generator process, which runs on a separate core if possible. */
export class Load {
  readonly child: Child;

  private constructor(child: Child) {
    this.child = child;
  }

  static async start(core: Core = loadCore): Promise<Load> {
    const args = [entry];
    return new Load(await Child.start({ args, core, readyPattern: /load ready/ }));
  }

  async openStreams(name: string, plan: StreamLoadPlan): Promise<void> {
    await this.child.ask('openStreams', { name, plan });
  }

  async received(name: string, events: number): Promise<void> {
    await this.child.ask('received', { name, events });
  }

  /** Counts what the streams have received, if each should have `each` events from `first` on. */
  count(name: string, { first, each }: { first: number; each: number }): Promise<StreamLoadCount> {
    const sum = (each * (2 * first + each - 1)) / 2;
    return this.child.ask('count', { name, each, sum }) as Promise<StreamLoadCount>;
  }

  async reset(name: string): Promise<void> {
    await this.child.ask('reset', { name });
  }

  async closeStreams(name: string): Promise<void> {
    await this.child.ask('closeStreams', { name });
  }

  loop(plan: LoopPlan): Promise<LoopResult> {
    return this.child.ask('loop', plan) as Promise<LoopResult>;
  }

  runHttp1Load(plan: Http1LoadPlan): Promise<Http1LoadResult> {
    return this.child.ask('http1Load', plan) as Promise<Http1LoadResult>;
  }

  publish(plan: PublishPlan): Promise<{ refused: number; seconds: number }> {
    return this.child.ask('publish', plan) as Promise<{ refused: number; seconds: number }>;
  }

  /** Runs `work` and returns the share of a core that the load generator used. */
  async busyDuring(work: () => Promise<unknown>): Promise<{ busy: number; isBottleneck: boolean }> {
    const startedAt = performance.now();
    const before = await this.child.usage();
    await work();
    const { cpuMicros } = await this.child.usage();
    const busy = (cpuMicros - before.cpuMicros) / 1000 / (performance.now() - startedAt);
    return { busy, isBottleneck: busy > busyMax };
  }

  stop(): Promise<void> {
    return this.child.stop();
  }
}
