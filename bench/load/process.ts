// The entry point of the load generator process, which `LoadGenerator` controls.
import { handleRequests } from '../process/request-handler.js';
import { type Http1LoadPlan, runHttp1Load } from './http1-load.js';
import { type LoopPlan, type PublishPlan, publish, runLoop } from './requests.js';
import { StreamLoad, type StreamLoadPlan } from './stream-load.js';

const loads = new Map<string, StreamLoad>();

handleRequests({
  async openStreams({ name, plan }: { name: string; plan: StreamLoadPlan }) {
    const load = loads.get(name) ?? new StreamLoad();
    loads.set(name, load);
    await load.open(plan);
  },
  waitForEvents: ({ name, eventCount }: { name: string; eventCount: number }) =>
    getLoad(name).waitForEvents(eventCount),
  count: ({ name, ...expected }: { name: string; eventsPerStream: number; sum: number }) =>
    getLoad(name).count(expected),
  reset: ({ name }: { name: string }) => getLoad(name).reset(),
  closeStreams({ name }: { name: string }) {
    getLoad(name).close();
    loads.delete(name);
  },
  runLoop: (plan: LoopPlan) => runLoop(plan),
  http1Load: (plan: Http1LoadPlan) => runHttp1Load(plan),
  publish: (plan: PublishPlan) => publish(plan),
});
process.stdout.write('load ready\n');

function getLoad(name: string): StreamLoad {
  const load = loads.get(name);
  if (load === undefined) throw new Error(`Cannot find stream load ${name}: it was never opened`);
  return load;
}
