import { busyShareMax, LoadGenerator } from '../load/load-generator.js';
import { createDelayFigure, createFigure, type Figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';
import {
  eventBytes,
  type NodeStreamTarget,
  openBareTarget,
  openHeraldTarget,
  openTargetStreams,
} from './support/stream-target.js';

/** Rates in events per second. Each request publishes one event, which every stream receives. */
const rates = [1, 10, 100, 1000] as const;
/**
 * Events per request and number of requests. Each request is sent after all streams have received the
 * events of the previous one.
 */
const sizes = [
  { size: 1, requests: 20 },
  { size: 10, requests: 10 },
  { size: 100, requests: 5 },
  { size: 1000, requests: 2 },
] as const;

interface Run {
  readonly cpuMicrosPerOperation: number;
  readonly loopDelayP99Ms: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly loadBusyShare: number;
}

export const subject: Subject = {
  name: 'batch',
  about:
    'server CPU per delivered event and latency with 1000 streams, by event rate and by events per request',
  seconds: 240,
  profile: {
    operation: 'delivered event',
    flameGraphRun: 'Herald, 1000/s',
    columns:
      '`n/s` is the number of events published per second, one per request; `n per request` is the number of events in one publish request.',
  },

  async run(bench: Bench): Promise<Figure[]> {
    const streamCount = bench.size({ smoke: 200, full: 1000 });
    const load = await bench.use(LoadGenerator.start());
    const herald = await openHeraldTarget(bench, streamCount);
    const openAndWarmUp = async (target: NodeStreamTarget) => {
      bench.print(`opening ${streamCount} streams to ${target.name}`);
      await openTargetStreams(load, target);
      await runAtRate({ bench, load, target }, { perSecond: 10, seconds: 1 });
      return target;
    };
    await openAndWarmUp(herald);
    const bare = bench.lazy(async () => openAndWarmUp(await openBareTarget(bench, streamCount)));
    const figures: Figure[] = [];
    for (const perSecond of bench.isShort ? ([1000] as const) : rates) {
      bench.print(`${perSecond} events per second`);
      const seconds = bench.size({ smoke: 1, full: perSecond === 1 ? 8 : 4 });
      await runAtRate({ bench, load, target: herald }, { perSecond, seconds }); // Warm-up.
      const runs = await bench.runInterleaved(
        { herald: () => runAtRate({ bench, load, target: herald }, { perSecond, seconds }) },
        {
          // The bare server cannot sustain high rates, but needs the same CPU per event at any rate.
          bare: async () => {
            const plan = { perSecond: 10, seconds: bench.size({ smoke: 1, full: 2 }) };
            return runAtRate({ bench, load, target: await bare() }, plan);
          },
        },
      );
      figures.push(...buildRateFigures(runs, { streamCount, perSecond }));
    }
    for (const { size, requests } of bench.isShort ? [] : sizes) {
      bench.print(`${size} events per request`);
      const single = { size: 1, requests: 20 };
      const runs = await bench.runInterleaved(
        { herald: () => runBatches({ bench, load, target: herald }, { size, requests }) },
        { bare: async () => runBatches({ bench, load, target: await bare() }, single) },
      );
      figures.push(...buildSizeFigures(runs, { streamCount, size }));
    }
    return figures;
  },
};

interface MeasureContext {
  readonly bench: Bench;
  readonly load: LoadGenerator;
  readonly target: NodeStreamTarget;
}

/** Publishes at a steady rate, whether or not earlier events have been delivered. */
function runAtRate(
  context: MeasureContext,
  { perSecond, seconds }: { perSecond: number; seconds: number },
): Promise<Run> {
  const { load, target } = context;
  const count = perSecond * seconds;
  return measure(context, { name: `${perSecond}/s`, count }, async () => {
    await load.publish({
      ...toPublishPlan(target),
      perSecond,
      count,
      perRequest: 1,
      firstNumber: 0,
    });
    await load.waitForEvents(target.name, count * target.streams.length);
  });
}

/**
 * Publishes `size` events per request. After each request, waits until all streams have received its
 * events.
 */
function runBatches(
  context: MeasureContext,
  { size, requests }: { size: number; requests: number },
): Promise<Run> {
  const { load, target } = context;
  return measure(context, { name: `${size} per request`, count: size * requests }, async () => {
    for (let sentEvents = 0; sentEvents < size * requests; sentEvents += size) {
      const plan = { perSecond: 1e6, count: size, perRequest: size, firstNumber: sentEvents };
      await load.publish({ ...toPublishPlan(target), ...plan });
      await load.waitForEvents(target.name, (sentEvents + size) * target.streams.length);
    }
  });
}

function toPublishPlan({ port, protocol, headers }: NodeStreamTarget) {
  return { port, protocol, path: '/events', headers, bytes: eventBytes };
}

/** Measures `publish`. Throws unless every stream has received each event once. */
async function measure(
  { bench, load, target }: MeasureContext,
  { name, count }: { name: string; count: number },
  publish: () => Promise<void>,
): Promise<Run> {
  const { child, streams } = target;
  await load.reset(target.name);
  let loadBusyShare = 0;
  const { cpuMicrosPerOperation, loopDelayP99Ms } = await bench.measureServer(
    child,
    `${target.name}, ${name}`,
    async () => {
      loadBusyShare = await load.measureBusyShare(publish);
      return count * streams.length;
    },
  );
  const { wrongStreamCount, lostCount, latency } = await load.count(target.name, {
    firstNumber: 0,
    eventsPerStream: count,
  });
  if (wrongStreamCount + lostCount > 0) {
    throw new Error(
      `Cannot measure: ${wrongStreamCount} streams with wrong events, ${lostCount} streams lost`,
    );
  }
  const { p50Ms, p99Ms, p999Ms } = latency;
  return { cpuMicrosPerOperation, loopDelayP99Ms, p50Ms, p99Ms, p999Ms, loadBusyShare };
}

interface Runs {
  readonly herald: readonly Run[];
  readonly bare: readonly Run[];
}

function toReference(bare: readonly Run[]) {
  return { what: 'bare loop, one at a time', runs: bare.map((run) => run.cpuMicrosPerOperation) };
}

function buildRateFigures(
  { herald, bare }: Runs,
  { streamCount, perSecond }: { streamCount: number; perSecond: number },
): Figure[] {
  const parameters = { streams: streamCount, 'events per second': perSecond, bytes: eventBytes };
  const base = { subject: 'batch', parameters };
  const loadBusyShare = Math.max(...herald.map((run) => run.loadBusyShare));
  const note = `the load generator used ${Math.round(loadBusyShare * 100)} % of a core${loadBusyShare > busyShareMax ? ', so the load generator was the bottleneck' : ''}`;
  const isHighestRate = perSecond === 1000;
  const latencyParts = (name: string, key: keyof Run) => ({
    ...{ ...base, what: `${name}, at ${perSecond}/s`, unit: 'ms' as const },
    runs: herald.map((run) => run[key]),
  });
  return [
    createFigure({
      ...{ ...base, what: `server CPU per delivered event, at ${perSecond}/s`, unit: 'us', note },
      runs: herald.map((run) => run.cpuMicrosPerOperation),
      reference: toReference(bare),
      isStableUnderLoad: isHighestRate,
      ...(isHighestRate && { goal: { on: 'ratio', is: '<=', bound: 0.1 } }),
    }),
    createFigure(latencyParts('publish to received, p50', 'p50Ms')),
    createFigure({
      ...latencyParts('publish to received, p99', 'p99Ms'),
      ...(isHighestRate && { goal: { on: 'value', is: '<=', bound: 100 } }),
    }),
    createFigure(latencyParts('publish to received, p99.9', 'p999Ms')),
    createDelayFigure(
      { ...base, runs: herald.map((run) => run.loopDelayP99Ms) },
      `at ${perSecond}/s`,
    ),
  ];
}

function buildSizeFigures(
  { herald, bare }: Runs,
  { streamCount, size }: { streamCount: number; size: number },
): Figure[] {
  const parameters = { streams: streamCount, 'events per request': size, bytes: eventBytes };
  const base = { subject: 'batch', parameters };
  return [
    createFigure({
      ...{ ...base, what: `server CPU per delivered event, ${size} per request`, unit: 'us' },
      runs: herald.map((run) => run.cpuMicrosPerOperation),
      reference: toReference(bare),
    }),
    createDelayFigure(
      { ...base, runs: herald.map((run) => run.loopDelayP99Ms) },
      `${size} per request`,
    ),
  ];
}
