import { setTimeout as pause } from 'node:timers/promises';
import { LoadGenerator } from '../load/load-generator.js';
import { serverCore } from '../machine.js';
import type { Child } from '../process/child.js';
import {
  createSettings,
  createStreamRequests,
  type PreparedDatabase,
  prepareDatabase,
  startHerald,
} from '../process/herald.js';
import { startReference } from '../process/reference.js';
import { computeSpread, createDelayFigure, createFigure, type Figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';
import {
  createBareTarget,
  type NodeStreamTarget,
  openTargetStreams,
} from './support/stream-target.js';

const warmUpStreamCount = 100;

/** A measurement with `streamCount` open streams. */
interface Point {
  readonly streamCount: number;
  /** Resident memory minus that of the idle server. */
  readonly memoryKib: number;
  /** Event loop delay while the streams of the last step opened. */
  readonly loopDelayP99Ms: number;
}

interface StreamLayout {
  readonly streamCount: number;
  readonly streamsPerConnection: number;
}

interface GrowthPlan extends StreamLayout {
  /** Number of equal groups in which the streams are opened, one after the other. */
  readonly stepCount: number;
}

export const subject: Subject = {
  name: 'memory',
  about: 'resident memory per idle stream',
  seconds: 480,
  profile: { operation: 'connect', flameGraphRun: 'Herald, 10000 on 10000' },

  async run(bench: Bench): Promise<Figure[]> {
    const streamCount = bench.size({ smoke: 400, full: 10_000, compared: 1000 });
    const settings = createSettings(bench.createFolder(), bench.certificate);
    const prepared = await prepareDatabase(bench.build, settings, { memberCount: streamCount });
    const load = await bench.use(LoadGenerator.start());
    const startTarget = {
      herald: () => openMemoryHerald(bench, prepared),
      bare: () => startBareServer(bench, streamCount),
    };
    const measureGrowth = ({
      streamsPerConnection,
      stepCount,
    }: Omit<GrowthPlan, 'streamCount'>) => {
      bench.print(`${streamCount} streams on ${streamCount / streamsPerConnection} connections`);
      const plan = { streamCount, streamsPerConnection, stepCount };
      return bench.runInterleaved(
        {
          herald: async () =>
            openInSteps({ bench, load, target: await startTarget.herald() }, plan),
        },
        { bare: async () => openInSteps({ bench, load, target: await startTarget.bare() }, plan) },
      );
    };
    const layouts = {
      onePerConnection: { streamCount, streamsPerConnection: 1 },
      hundredPerConnection: { streamCount, streamsPerConnection: 100 },
    };
    if (bench.isShort) {
      const runs = await measureGrowth({ streamsPerConnection: 1, stepCount: 1 });
      return [buildMemoryFigure(layouts.onePerConnection, runs)];
    }
    const oneRuns = await measureGrowth({ streamsPerConnection: 1, stepCount: 10 });
    const hundredRuns = await measureGrowth({ streamsPerConnection: 100, stepCount: 1 });
    return [
      buildMemoryFigure({ streamCount: 2000, streamsPerConnection: 1 }, oneRuns),
      buildMemoryFigure(layouts.onePerConnection, oneRuns),
      buildMemoryFigure(layouts.hundredPerConnection, hundredRuns),
      buildConnectFigure(layouts.onePerConnection, oneRuns.herald),
      buildConnectFigure(layouts.hundredPerConnection, hundredRuns.herald),
      buildCurveFigure('all idle streams, Herald', streamCount, oneRuns.herald),
      buildCurveFigure('all idle streams, bare loop', streamCount, oneRuns.bare),
    ];
  },
};

/**
 * Opens streams to a new server in steps, measures its memory after each step, and stops the server.
 */
async function openInSteps(
  { bench, load, target }: { bench: Bench; load: LoadGenerator; target: NodeStreamTarget },
  plan: GrowthPlan,
): Promise<readonly Point[]> {
  const { child, name } = target;
  const { streamCount, streamsPerConnection, stepCount } = plan;
  const label = `${streamCount} on ${streamCount / streamsPerConnection}`;
  try {
    // Warm-up: code and buffers that are allocated only once must not count as memory of streams.
    await openTargetStreams(load, {
      ...target,
      streams: target.streams.slice(0, warmUpStreamCount),
    });
    await load.closeStreams(name);
    await pause(500);
    await child.waitUntilIdle();
    const idleBytes = await measureResidentBytes(child);
    const points: Point[] = [];
    for (let step = 0; step < stepCount; step += 1) {
      const stepStreams = target.streams.slice(
        (step * streamCount) / stepCount,
        ((step + 1) * streamCount) / stepCount,
      );
      const { loopDelayP99Ms } = await bench.measureServer(child, `${name}, ${label}`, async () => {
        await openTargetStreams(
          load,
          { ...target, streams: stepStreams },
          { streamsPerConnection },
        );
        return stepStreams.length;
      });
      const bytes = (await measureResidentBytes(child)) - idleBytes;
      points.push({
        streamCount: ((step + 1) * streamCount) / stepCount,
        memoryKib: bytes / 1024,
        loopDelayP99Ms,
      });
    }
    const { lostCount } = await load.count(name, { firstNumber: 0, eventsPerStream: 0 });
    if (lostCount > 0)
      throw new Error(`Cannot measure: ${lostCount} of ${streamCount} streams have ended`);
    return points;
  } finally {
    await load.closeStreams(name);
    await child.stop();
  }
}

async function measureResidentBytes(child: Child): Promise<number> {
  await child.collectGarbage();
  return (await child.usage()).rssBytes;
}

interface Runs {
  readonly herald: readonly (readonly Point[])[];
  readonly bare: readonly (readonly Point[])[];
}

/**
 * Builds the figure of memory per stream. Only the figure of one stream per connection, as in browsers,
 * has a goal.
 */
function buildMemoryFigure(
  { streamCount, streamsPerConnection }: StreamLayout,
  { herald, bare }: Runs,
): Figure {
  const perStream = (points: readonly Point[]) =>
    (points.find((point) => point.streamCount === streamCount)?.memoryKib ?? Number.NaN) /
    streamCount;
  return createFigure({
    subject: 'memory',
    what: `memory per idle stream, ${streamCount} on ${streamCount / streamsPerConnection} connections`,
    parameters: { streams: streamCount, connections: streamCount / streamsPerConnection },
    unit: 'KiB',
    runs: herald.map(perStream),
    reference: { what: 'bare node:http2 loop', runs: bare.map(perStream) },
    isStableUnderLoad: true,
    ...(streamsPerConnection === 1 && { goal: { on: 'ratio', is: '<=', bound: 1.1 } }),
  });
}

/** Builds the figure of the event loop delay while streams open. The value of a run is its slowest step. */
function buildConnectFigure(
  { streamCount, streamsPerConnection }: StreamLayout,
  runs: readonly (readonly Point[])[],
): Figure {
  const connections = streamCount / streamsPerConnection;
  return createDelayFigure(
    {
      ...{ subject: 'memory', parameters: { streams: streamCount, connections } },
      runs: runs.map((points) => Math.max(...points.map(({ loopDelayP99Ms }) => loopDelayP99Ms))),
    },
    `while ${streamCount} streams open on ${connections} connections`,
  );
}

/** Builds a figure whose curve has, for each step, the median of all runs. */
function buildCurveFigure(
  what: string,
  streamCount: number,
  runs: readonly (readonly Point[])[],
): Figure {
  const mib = (run: readonly Point[], step: number) => (run[step]?.memoryKib ?? Number.NaN) / 1024;
  const steps = runs[0] ?? [];
  return createFigure({
    ...{ subject: 'memory', what, parameters: { streams: streamCount }, unit: 'MiB' },
    runs: runs.map((run) => mib(run, run.length - 1)),
    curve: steps.map((point, step) => [
      point.streamCount,
      computeSpread(runs.map((run) => mib(run, step))).median,
    ]),
  });
}

async function openMemoryHerald(
  bench: Bench,
  { settings, members }: PreparedDatabase,
): Promise<NodeStreamTarget> {
  const child = await startHerald(bench.build, settings);
  const port = child.port;
  return {
    name: 'Herald',
    child,
    port,
    protocol: 'h2',
    streams: createStreamRequests(members),
    headers: {},
  };
}

async function startBareServer(bench: Bench, streamCount: number): Promise<NodeStreamTarget> {
  const options = { folder: bench.createFolder(), core: serverCore, env: bench.certificate };
  return createBareTarget(streamCount, await startReference('bare.ts', options));
}
