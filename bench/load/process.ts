import { handleRequests } from '../process/request-handler.js';
import { type Http1LoadPlan, runHttp1Load } from './http1-load.js';
import { type LoopPlan, loop, type PublishPlan, publish } from './requests.js';
import { StreamLoad, type StreamLoadPlan } from './stream-load.js';

/** Entry of the load generator process, controlled by `Load`. */
const loads = new Map<string, StreamLoad>();

handleRequests({
  async openStreams({ name, plan }: { name: string; plan: StreamLoadPlan }) {
    const load = loads.get(name) ?? new StreamLoad();
    loads.set(name, load);
    await load.open(plan);
  },
  received: ({ name, events }: { name: string; events: number }) => getLoad(name).received(events),
  count: ({ name, ...expected }: { name: string; each: number; sum: number }) =>
    getLoad(name).count(expected),
  reset: ({ name }: { name: string }) => getLoad(name).reset(),
  closeStreams({ name }: { name: string }) {
    getLoad(name).close();
    loads.delete(name);
  },
  loop: (plan: LoopPlan) => loop(plan),
  http1Load: (plan: Http1LoadPlan) => runHttp1Load(plan),
  publish: (plan: PublishPlan) => publish(plan),
});
process.stdout.write('load ready\n');

function getLoad(name: string): StreamLoad {
  const load = loads.get(name);
  if (load === undefined) throw new Error(`Cannot find stream load ${name}: it was never opened`);
  return load;
}
