import { answerWith } from '../process/answers.js';
import { type CannonPlan, cannon } from './cannon.js';
import { Crowd, type CrowdPlan } from './crowd.js';
import { type LoopPlan, loop, type PublishPlan, publish } from './requests.js';

/** The process that makes the load, so that its work is not the server's. `Load` is its other end. */
const crowds = new Map<string, Crowd>();

answerWith({
  async openCrowd({ name, plan }: { name: string; plan: CrowdPlan }) {
    const crowd = crowds.get(name) ?? new Crowd();
    crowds.set(name, crowd);
    await crowd.open(plan);
  },
  received: ({ name, events }: { name: string; events: number }) => crowdOf(name).received(events),
  count: ({ name, ...expected }: { name: string; each: number; sum: number }) =>
    crowdOf(name).count(expected),
  reset: ({ name }: { name: string }) => crowdOf(name).reset(),
  closeCrowd({ name }: { name: string }) {
    crowdOf(name).close();
    crowds.delete(name);
  },
  loop: (plan: LoopPlan) => loop(plan),
  cannon: (plan: CannonPlan) => cannon(plan),
  publish: (plan: PublishPlan) => publish(plan),
});
process.stdout.write('load ready\n');

function crowdOf(name: string): Crowd {
  const crowd = crowds.get(name);
  if (crowd === undefined) throw new Error(`Cannot find crowd ${name}: it was never opened`);
  return crowd;
}
