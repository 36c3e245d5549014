import { LoadGenerator } from '../load/load-generator.js';
import type { ServerUsage } from '../process/server-usage.js';
import { createDelayFigure, createFigure, type Figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';
import { openPeerTargets } from './support/peers.js';
import {
  eventBytes,
  openBareTarget,
  openHeraldTarget,
  openTargetStreams,
  type StreamTarget,
} from './support/stream-target.js';

export const subject: Subject = {
  name: 'fan-out',
  about: 'server CPU per delivered event, one event at a time',
  seconds: 60,
  profile: { operation: 'delivered event', flameGraphRun: 'Herald' },

  async run(bench: Bench): Promise<Figure[]> {
    const streamCount = bench.size({ smoke: 200, full: 1000, compared: 500 });
    const eventCount = 50;
    const load = await bench.use(LoadGenerator.start());
    // Peers are other SSE servers, which are measured for comparison.
    const targets: StreamTarget[] = [
      await openHeraldTarget(bench, streamCount),
      ...(bench.hasReferences ? [await openBareTarget(bench, streamCount)] : []),
      ...(bench.isShort ? [] : await openPeerTargets(bench, streamCount)),
    ];
    for (const target of targets) {
      bench.print(`opening ${streamCount} streams to ${target.name}`);
      await openTargetStreams(load, target);
      await measure(bench, load, { target, eventCount }); // Warm-up, not counted.
    }
    const runs = await bench.runInterleaved(
      Object.fromEntries(
        targets.map((target) => [target.name, () => measure(bench, load, { target, eventCount })]),
      ),
    );
    const [herald = [], bare = [], ...peerRuns] = Object.values(runs);
    const peerNames = targets.slice(2).map(({ name }) => name);
    const parameters = { streams: streamCount, 'events at a time': 1, bytes: eventBytes };
    const base = { subject: 'fan-out', parameters };
    const reference = {
      what: 'bare node:http2 loop',
      runs: bare.map(({ cpuMicrosPerOperation }) => cpuMicrosPerOperation),
    };
    const delays = (usages: readonly ServerUsage[]) =>
      usages.map(({ loopDelayP99Ms }) => loopDelayP99Ms);
    return [
      createFigure({
        ...{ ...base, what: 'server CPU per delivered event', unit: 'us' },
        runs: herald.map(({ cpuMicrosPerOperation }) => cpuMicrosPerOperation),
        reference,
        goal: { on: 'ratio', is: '<=', bound: 1.15 },
        isStableUnderLoad: true,
      }),
      ...peerRuns.map((peer, index) =>
        createFigure({
          ...{ ...base, what: `server CPU per delivered event, ${peerNames[index]}`, unit: 'us' },
          runs: peer.map(({ cpuMicrosPerOperation }) => cpuMicrosPerOperation),
          reference,
        }),
      ),
      createDelayFigure({ ...base, runs: delays(herald) }, 'each event alone'),
      createDelayFigure({ ...base, runs: delays(bare) }, 'each event alone, bare node:http2 loop'),
    ];
  },
};

/** Publishes events one at a time. After each event, waits until all streams have received it. */
async function measure(
  bench: Bench,
  load: LoadGenerator,
  { target, eventCount }: { target: StreamTarget; eventCount: number },
): Promise<ServerUsage> {
  const { name, child, port, protocol, headers, streams } = target;
  await load.reset(name);
  const usage = await bench.measureServer(child, name, async () => {
    for (let number = 0; number < eventCount; number += 1) {
      await load.publish({
        ...{ port, protocol, path: '/events', headers, bytes: eventBytes },
        ...{ perSecond: 1000, count: 1, perRequest: 1, firstNumber: number },
      });
      await load.waitForEvents(name, (number + 1) * streams.length);
    }
    return eventCount * streams.length;
  });
  const { wrongStreamCount, lostCount } = await load.count(name, {
    firstNumber: 0,
    eventsPerStream: eventCount,
  });
  if (wrongStreamCount + lostCount > 0) {
    throw new Error(
      `Cannot measure: ${wrongStreamCount} streams with wrong events, ${lostCount} streams lost`,
    );
  }
  return usage;
}
