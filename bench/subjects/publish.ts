import { Load } from '../load/load.js';
import { createMarkedData } from '../load/marked-events.js';
import type { Child } from '../process/child.js';
import { prepareDatabase, settingsFor, startHerald } from '../process/herald.js';
import { startScript } from '../process/scripts.js';
import { delayFigure, type Figure, figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';

const publishers = 64;
const eventBytes = 200;

interface Run {
  readonly rate: number;
  readonly cpuMicrosPerOperation: number;
  readonly p99Ms: number;
  readonly loopDelayP99Ms: number;
  readonly loadBusyShare: number;
}

export const subject: Subject = {
  name: 'publish',
  about: 'durable publishes per second, embedded database',
  seconds: 60,
  profile: { operation: 'event', flameGraphRun: 'Herald, 1 a request' },

  async run(bench: Bench): Promise<Figure[]> {
    const seconds = bench.size({ smoke: 1, full: 4 });
    // All cores for all processes, because the server writes in a separate thread.
    const load = await bench.use(Load.start('all'));
    const settings = settingsFor(bench.folder(), bench.certificate);
    const prepared = await prepareDatabase(bench.build, settings, { members: 1 });
    const herald = await bench.use(startHerald(bench.build, settings, { core: 'all' }));
    const headers = { authorization: `Bearer ${prepared.publishKey}` };
    const own = { name: 'Herald', bench, load, child: herald, headers };
    const warmUp = async (target: Target) => {
      await measurePublish(target, { batch: 1, seconds: 1 });
      return target;
    };
    await warmUp(own);
    const bare = bench.lazy(async () => {
      const options = { folder: bench.folder(), env: bench.certificate };
      const child = await bench.use(startScript('bare.ts', options));
      return warmUp({ name: 'bare POST', bench, load, child, headers: {} });
    });
    const alone = bench.lazy(() =>
      bench.use(startScript('one-by-one.ts', { folder: bench.folder() })),
    );
    const { one, many, floor, fsync } = await bench.interleaved(
      {
        one: () => measurePublish(own, { batch: 1, seconds }),
        many: () => measurePublish(own, { batch: 100, seconds }),
      },
      {
        floor: async () => measurePublish(await bare(), { batch: 1, seconds }),
        fsync: async () => measureOneByOne(await alone(), seconds),
      },
    );
    const references = { floor, fsync };
    return [...buildFigures(1, one, references), ...buildFigures(100, many, references)];
  },
};

interface References {
  readonly floor: readonly Run[];
  readonly fsync: readonly Run[];
}

/** Builds the figures for `batch` events per request; 100 represents backends that send batches. */
function buildFigures(batch: number, own: readonly Run[], { floor, fsync }: References): Figure[] {
  const parameters = { publishers, 'events a request': batch, bytes: eventBytes };
  const base = { subject: 'publish', parameters };
  const loadBusyShare = Math.max(...own.map((run) => run.loadBusyShare));
  const note = `the load uses ${Math.round(loadBusyShare * 100)} % of a core, which the server then lacks`;
  return [
    figure({
      ...{ ...base, what: `durable events a second, ${batch} a request`, unit: '/s', note },
      runs: own.map((run) => run.rate),
      reference: {
        what: 'one transaction and fsync an event, no HTTP',
        runs: fsync.map((run) => run.rate),
      },
      goal: { on: 'ratio', is: '>=', bound: 20 },
    }),
    figure({
      ...{ ...base, what: `server CPU an event, ${batch} a request`, unit: 'us' },
      runs: own.map((run) => run.cpuMicrosPerOperation),
      // Not `fsync`, because its CPU cost depends on the other load of the disk.
      reference: {
        what: 'bare node:http2 POST, nothing kept',
        runs: floor.map((run) => run.cpuMicrosPerOperation),
      },
      isStableUnderLoad: true,
    }),
    figure({
      ...{ ...base, what: `publish to answer, p99, ${batch} a request`, unit: 'ms' },
      runs: own.map((run) => run.p99Ms),
    }),
    delayFigure({ ...base, runs: own.map((run) => run.loopDelayP99Ms) }, `${batch} a request`),
  ];
}

interface Target {
  readonly name: string;
  readonly bench: Bench;
  readonly load: Load;
  readonly child: Child;
  readonly headers: Readonly<Record<string, string>>;
}

/** Runs all publishers concurrently, each with one request at a time. */
async function measurePublish(
  { name, bench, load, child, headers }: Target,
  { batch, seconds }: { batch: number; seconds: number },
): Promise<Run> {
  const event = { to: { users: ['1'] }, data: createMarkedData(0, eventBytes) };
  const body = JSON.stringify(batch === 1 ? event : Array.from({ length: batch }, () => event));
  let result = { rate: 0, p99Ms: 0, loadBusyShare: 0 };
  const { cpuMicrosPerOperation, loopDelayP99Ms } = await bench.measureServer(
    child,
    `${name}, ${batch} a request`,
    async () => {
      let events = 0;
      const { busyShare: loadBusyShare } = await load.busyDuring(async () => {
        const done = await load.runLoop({
          port: child.port,
          path: '/events',
          clients: Array.from({ length: publishers }, () => ({ headers, body })),
          count: Number.MAX_SAFE_INTEGER,
          nextBody: 'same',
          durationMsMax: seconds * 1000,
        });
        if (done.refusedCount > 0) throw new Error(`Cannot publish: ${done.errorExample}`);
        events = done.responseCount * batch;
        result = { ...result, rate: events / done.seconds, p99Ms: done.latency.p99Ms };
      });
      result = { ...result, loadBusyShare };
      return events;
    },
  );
  return { ...result, cpuMicrosPerOperation, loopDelayP99Ms };
}

/** Measures single transactions. Returns only a rate; the other values are not compared. */
async function measureOneByOne(alone: Child, seconds: number): Promise<Run> {
  const rate = Number(await alone.ask('insert', seconds * 1000));
  return { rate, cpuMicrosPerOperation: 0, p99Ms: 0, loopDelayP99Ms: 0, loadBusyShare: 0 };
}
