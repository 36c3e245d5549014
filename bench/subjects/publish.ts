import { LoadGenerator } from '../load/load-generator.js';
import { createMarkedData } from '../load/marked-events.js';
import type { Child } from '../process/child.js';
import { createSettings, prepareDatabase, startHerald } from '../process/herald.js';
import { startReference } from '../process/reference.js';
import { createDelayFigure, createFigure, type Figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';

const publisherCount = 64;
const eventBytes = 200;

interface Run {
  /** Events per second. */
  readonly perSecond: number;
  readonly cpuMicrosPerOperation: number;
  readonly p99Ms: number;
  readonly loopDelayP99Ms: number;
  readonly loadBusyShare: number;
}

export const subject: Subject = {
  name: 'publish',
  about: 'durable publishes per second, embedded database',
  seconds: 60,
  profile: {
    operation: 'event',
    flameGraphRun: 'Herald, 1 per request',
    columns: '`n per request` is the number of events in one publish request.',
  },

  async run(bench: Bench): Promise<Figure[]> {
    const seconds = bench.size({ smoke: 1, full: 4 });
    // Every process may use all cores, because the server writes in a separate thread.
    const load = await bench.use(LoadGenerator.start('all'));
    const settings = createSettings(bench.createFolder(), bench.certificate);
    const prepared = await prepareDatabase(bench.build, settings, { memberCount: 1 });
    const herald = await bench.use(startHerald(bench.build, settings, { core: 'all' }));
    const headers = { authorization: `Bearer ${prepared.publishKey}` };
    const heraldTarget = { name: 'Herald', bench, load, child: herald, headers };
    const warmUp = async (target: Target) => {
      await measurePublish(target, { batch: 1, seconds: 1 });
      return target;
    };
    await warmUp(heraldTarget);
    const getBareTarget = bench.lazy(async () => {
      const options = { folder: bench.createFolder(), env: bench.certificate };
      const child = await bench.use(startReference('bare.ts', options));
      return warmUp({ name: 'bare node:http2 POST', bench, load, child, headers: {} });
    });
    const getOneByOneProcess = bench.lazy(() =>
      bench.use(startReference('one-by-one.ts', { folder: bench.createFolder() })),
    );
    const { single, batched, bare, oneByOne } = await bench.runInterleaved(
      {
        single: () => measurePublish(heraldTarget, { batch: 1, seconds }),
        batched: () => measurePublish(heraldTarget, { batch: 100, seconds }),
      },
      {
        bare: async () => measurePublish(await getBareTarget(), { batch: 1, seconds }),
        oneByOne: async () => measureOneByOne(await getOneByOneProcess(), seconds),
      },
    );
    const references = { bare, oneByOne };
    return [...buildFigures(1, single, references), ...buildFigures(100, batched, references)];
  },
};

interface References {
  /** The bare server (`references/bare.ts`) without open streams, which only responds. */
  readonly bare: readonly Run[];
  /** One transaction per event (`references/one-by-one.ts`). */
  readonly oneByOne: readonly Run[];
}

/** Builds the figures for `batch` events per request; 100 represents a backend that sends batches. */
function buildFigures(
  batch: number,
  herald: readonly Run[],
  { bare, oneByOne }: References,
): Figure[] {
  const parameters = { publishers: publisherCount, 'events per request': batch, bytes: eventBytes };
  const base = { subject: 'publish', parameters };
  const loadBusyShare = Math.max(...herald.map((run) => run.loadBusyShare));
  const note = `the load generator used ${Math.round(loadBusyShare * 100)} % of a core, which the server could not use`;
  return [
    createFigure({
      ...{ ...base, what: `durable events per second, ${batch} per request`, unit: '/s', note },
      runs: herald.map((run) => run.perSecond),
      reference: {
        what: 'one transaction and fsync per event, no HTTP',
        runs: oneByOne.map((run) => run.perSecond),
      },
      goal: { on: 'ratio', is: '>=', bound: 20 },
    }),
    createFigure({
      ...{ ...base, what: `server CPU per event, ${batch} per request`, unit: 'us' },
      runs: herald.map((run) => run.cpuMicrosPerOperation),
      // Not `oneByOne`, because its CPU time depends on other load of the disk.
      reference: {
        what: 'bare node:http2 POST, nothing stored',
        runs: bare.map((run) => run.cpuMicrosPerOperation),
      },
      isStableUnderLoad: true,
    }),
    createFigure({
      ...{ ...base, what: `publish to response, p99, ${batch} per request`, unit: 'ms' },
      runs: herald.map((run) => run.p99Ms),
    }),
    createDelayFigure(
      { ...base, runs: herald.map((run) => run.loopDelayP99Ms) },
      `${batch} per request`,
    ),
  ];
}

interface Target {
  readonly name: string;
  readonly bench: Bench;
  readonly load: LoadGenerator;
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
  let result = { perSecond: 0, p99Ms: 0, loadBusyShare: 0 };
  const { cpuMicrosPerOperation, loopDelayP99Ms } = await bench.measureServer(
    child,
    `${name}, ${batch} per request`,
    async () => {
      let events = 0;
      const loadBusyShare = await load.measureBusyShare(async () => {
        const loopResult = await load.runLoop({
          port: child.port,
          path: '/events',
          clients: Array.from({ length: publisherCount }, () => ({ headers, body })),
          responseCountMax: Number.MAX_SAFE_INTEGER,
          nextBody: 'same',
          durationMsMax: seconds * 1000,
        });
        if (loopResult.refusedCount > 0)
          throw new Error(`Cannot publish: ${loopResult.errorExample}`);
        events = loopResult.responseCount * batch;
        result = {
          ...result,
          perSecond: events / loopResult.seconds,
          p99Ms: loopResult.latency.p99Ms,
        };
      });
      result = { ...result, loadBusyShare };
      return events;
    },
  );
  return { ...result, cpuMicrosPerOperation, loopDelayP99Ms };
}

/**
 * Measures the rate of single transactions. The other values of the run are 0, because no figure uses
 * them.
 */
async function measureOneByOne(oneByOneProcess: Child, seconds: number): Promise<Run> {
  const perSecond = Number(await oneByOneProcess.ask('insert', seconds * 1000));
  return { perSecond, cpuMicrosPerOperation: 0, p99Ms: 0, loopDelayP99Ms: 0, loadBusyShare: 0 };
}
