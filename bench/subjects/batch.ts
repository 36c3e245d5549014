import { Load } from '../load/load.js';
import { delayFigure, type Figure, figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';
import {
  eventBytes,
  type NodeStreamTarget,
  openBareTarget,
  openHeraldTarget,
  openTargetStreams,
} from './support/stream-target.js';

/** Rates in events per second; one event per request, each to every stream. */
const rates = [1, 10, 100, 1000] as const;
/**
 * Events per request and number of requests; each request waits for delivery of the previous one.
 */
const sizes = [
  { size: 1, requests: 20 },
  { size: 10, requests: 10 },
  { size: 100, requests: 5 },
  { size: 1000, requests: 2 },
] as const;

interface Run {
  readonly cpu: number;
  readonly delay: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly loadBusy: number;
}

export const subject: Subject = {
  name: 'batch',
  about: 'server CPU per event and latency when many events come, to 1000 streams',
  seconds: 240,
  profile: { operation: 'delivered event', drawn: 'Herald, 1000/s' },

  async run(bench: Bench): Promise<Figure[]> {
    const streams = bench.size(200, 1000);
    const load = await bench.use(Load.start());
    const herald = await openHeraldTarget(bench, streams);
    const openAndWarmUp = async (target: NodeStreamTarget) => {
      bench.print(`opening ${streams} streams to ${target.name}`);
      await openTargetStreams(load, target);
      await runAtRate({ bench, load, target }, { perSecond: 10, seconds: 1 });
      return target;
    };
    await openAndWarmUp(herald);
    const bare = bench.lazy(async () => openAndWarmUp(await openBareTarget(bench, streams)));
    const figures: Figure[] = [];
    for (const perSecond of bench.isShort ? ([1000] as const) : rates) {
      bench.print(`${perSecond} events a second`);
      const seconds = bench.size(1, perSecond === 1 ? 8 : 4);
      await runAtRate({ bench, load, target: herald }, { perSecond, seconds }); // Warm-up.
      const runs = await bench.interleaved(
        { herald: () => runAtRate({ bench, load, target: herald }, { perSecond, seconds }) },
        {
          // The loop cannot sustain high rates, but its CPU per event is the same at any rate.
          bare: async () => {
            const plan = { perSecond: 10, seconds: bench.size(1, 2) };
            return runAtRate({ bench, load, target: await bare() }, plan);
          },
        },
      );
      figures.push(...buildRateFigures(runs, { streams, perSecond }));
    }
    for (const { size, requests } of bench.isShort ? [] : sizes) {
      bench.print(`${size} events a request`);
      const single = { size: 1, requests: 20 };
      const runs = await bench.interleaved(
        { herald: () => runBatches({ bench, load, target: herald }, { size, requests }) },
        { bare: async () => runBatches({ bench, load, target: await bare() }, single) },
      );
      figures.push(...buildSizeFigures(runs, { streams, size }));
    }
    return figures;
  },
};

interface Parts {
  readonly bench: Bench;
  readonly load: Load;
  readonly target: NodeStreamTarget;
}

/** Publishes at a steady rate, independent of delivery. */
function runAtRate(
  parts: Parts,
  { perSecond, seconds }: { perSecond: number; seconds: number },
): Promise<Run> {
  const { load, target } = parts;
  const count = perSecond * seconds;
  return measure(parts, { name: `${perSecond}/s`, count }, async () => {
    await load.publish({
      ...toPublishPlan(target),
      perSecond,
      count,
      perRequest: 1,
      firstNumber: 0,
    });
    await load.received(target.name, count * target.streams.length);
  });
}

/** Publishes `size` events per request, each after all streams have received the previous ones. */
function runBatches(
  parts: Parts,
  { size, requests }: { size: number; requests: number },
): Promise<Run> {
  const { load, target } = parts;
  return measure(parts, { name: `${size} a request`, count: size * requests }, async () => {
    for (let done = 0; done < size * requests; done += size) {
      const plan = { perSecond: 1e6, count: size, perRequest: size, firstNumber: done };
      await load.publish({ ...toPublishPlan(target), ...plan });
      await load.received(target.name, (done + size) * target.streams.length);
    }
  });
}

function toPublishPlan({ port, protocol, headers }: NodeStreamTarget) {
  return { port, protocol, path: '/events', headers, bytes: eventBytes };
}

/** Measures `publish`. Throws unless every stream gets each event once. */
async function measure(
  { bench, load, target }: Parts,
  { name, count }: { name: string; count: number },
  publish: () => Promise<void>,
): Promise<Run> {
  const { child, streams } = target;
  await load.reset(target.name);
  let loadBusy = 0;
  const { cpu, delay } = await bench.watch(child, `${target.name}, ${name}`, async () => {
    loadBusy = (await load.busyDuring(publish)).busy;
    return count * streams.length;
  });
  const { wrong, lost, latency } = await load.count(target.name, { first: 0, each: count });
  if (wrong + lost > 0) throw new Error(`Cannot count: ${wrong} streams wrong, ${lost} lost`);
  const { p50, p99, p999 } = latency;
  return { cpu, delay, p50, p99, p999, loadBusy };
}

interface Runs {
  readonly herald: readonly Run[];
  readonly bare: readonly Run[];
}

function toReference(bare: readonly Run[]) {
  return { what: 'bare loop, one at a time', runs: bare.map((run) => run.cpu) };
}

function buildRateFigures(
  { herald, bare }: Runs,
  { streams, perSecond }: { streams: number; perSecond: number },
): Figure[] {
  const parameters = { streams, 'events a second': perSecond, bytes: eventBytes };
  const base = { subject: 'batch', parameters };
  const loadBusy = Math.max(...herald.map((run) => run.loadBusy));
  const note = `load ${Math.round(loadBusy * 100)} % of a core${loadBusy > 0.9 ? ': the bottleneck' : ''}`;
  const isTop = perSecond === 1000;
  const timed = (name: string, key: keyof Run) => ({
    ...{ ...base, what: `${name}, at ${perSecond}/s`, unit: 'ms' as const },
    runs: herald.map((run) => run[key]),
  });
  return [
    figure({
      ...{ ...base, what: `server CPU per delivered event, at ${perSecond}/s`, unit: 'us', note },
      runs: herald.map((run) => run.cpu),
      reference: toReference(bare),
      isSteady: isTop,
      ...(isTop && { goal: { on: 'ratio', is: '<=', bound: 0.1 } }),
    }),
    figure(timed('publish to received, p50', 'p50')),
    figure({
      ...timed('publish to received, p99', 'p99'),
      ...(isTop && { goal: { on: 'value', is: '<=', bound: 100 } }),
    }),
    figure(timed('publish to received, p99.9', 'p999')),
    delayFigure({ ...base, runs: herald.map((run) => run.delay) }, `at ${perSecond}/s`),
  ];
}

function buildSizeFigures(
  { herald, bare }: Runs,
  { streams, size }: { streams: number; size: number },
): Figure[] {
  const parameters = { streams, 'events a request': size, bytes: eventBytes };
  const base = { subject: 'batch', parameters };
  return [
    figure({
      ...{ ...base, what: `server CPU per delivered event, ${size} a request`, unit: 'us' },
      runs: herald.map((run) => run.cpu),
      reference: toReference(bare),
    }),
    delayFigure({ ...base, runs: herald.map((run) => run.delay) }, `${size} a request`),
  ];
}
