import { fileURLToPath } from 'node:url';
import { type Core, loadCore } from '../machine.js';
import { Child } from '../process/child.js';
import type { CannonPlan, CannonResult } from './cannon.js';
import type { CrowdCount, CrowdPlan } from './crowd.js';
import type { LoopPlan, LoopResult, PublishPlan } from './requests.js';

const entry = fileURLToPath(new URL('./process.ts', import.meta.url));

/** Above this much of one core the load is what is measured, not the server. */
const busyMax = 0.9;

/** A process that makes load, on a core of its own where there is one. */
export class Load {
  readonly child: Child;

  private constructor(child: Child) {
    this.child = child;
  }

  static async start(core: Core = loadCore): Promise<Load> {
    const args = [entry];
    return new Load(await Child.start({ args, core, readyPattern: /load ready/ }));
  }

  async openCrowd(name: string, plan: CrowdPlan): Promise<void> {
    await this.child.ask('openCrowd', { name, plan });
  }

  async received(name: string, events: number): Promise<void> {
    await this.child.ask('received', { name, events });
  }

  /** What the crowd has, when each stream should have the events of these numbers. */
  count(name: string, { first, each }: { first: number; each: number }): Promise<CrowdCount> {
    const sum = (each * (2 * first + each - 1)) / 2;
    return this.child.ask('count', { name, each, sum }) as Promise<CrowdCount>;
  }

  async reset(name: string): Promise<void> {
    await this.child.ask('reset', { name });
  }

  async closeCrowd(name: string): Promise<void> {
    await this.child.ask('closeCrowd', { name });
  }

  loop(plan: LoopPlan): Promise<LoopResult> {
    return this.child.ask('loop', plan) as Promise<LoopResult>;
  }

  cannon(plan: CannonPlan): Promise<CannonResult> {
    return this.child.ask('cannon', plan) as Promise<CannonResult>;
  }

  publish(plan: PublishPlan): Promise<{ refused: number; seconds: number }> {
    return this.child.ask('publish', plan) as Promise<{ refused: number; seconds: number }>;
  }

  /** Does some work and answers how much of a core the load needed for it. */
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
