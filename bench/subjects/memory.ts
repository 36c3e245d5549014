import { setTimeout as pause } from 'node:timers/promises';
import { Load } from '../load/load.js';
import { serverCore } from '../machine.js';
import type { Child } from '../process/child.js';
import {
  createStreamRequests,
  type PreparedDatabase,
  prepareDatabase,
  settingsFor,
  startHerald,
} from '../process/herald.js';
import { startScript } from '../process/scripts.js';
import { computeSpread, delayFigure, type Figure, figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';
import {
  createBareTarget,
  type NodeStreamTarget,
  openTargetStreams,
} from './support/stream-target.js';

const warmUpStreams = 100;

/** A measurement while `streams` streams are open. */
interface Point {
  readonly streams: number;
  /** Resident memory minus that of the idle server. */
  readonly kib: number;
  /** Event loop delay while the streams of the last step opened. */
  readonly loopDelayP99Ms: number;
}

interface StreamCounts {
  readonly streams: number;
  readonly streamsPerConnection: number;
}

/** `steps` is the number of equal groups in which the streams are opened. */
interface GrowthPlan extends StreamCounts {
  readonly steps: number;
}

export const subject: Subject = {
  name: 'memory',
  about: 'resident memory per idle stream',
  seconds: 480,
  profile: { operation: 'connect', flameGraphRun: 'Herald, 10000 on 10000' },

  async run(bench: Bench): Promise<Figure[]> {
    const streams = bench.size({ smoke: 400, full: 10_000, compared: 1000 });
    const settings = settingsFor(bench.folder(), bench.certificate);
    const prepared = await prepareDatabase(bench.build, settings, { members: streams });
    const load = await bench.use(Load.start());
    const startTarget = {
      herald: () => openMemoryHerald(bench, prepared),
      bare: () => startBareServer(bench, streams),
    };
    const measureGrowth = ({ streamsPerConnection, steps }: Omit<GrowthPlan, 'streams'>) => {
      bench.print(`${streams} streams on ${streams / streamsPerConnection} connections`);
      const plan = { streams, streamsPerConnection, steps };
      return bench.interleaved(
        {
          herald: async () =>
            openInSteps({ bench, load, target: await startTarget.herald() }, plan),
        },
        { bare: async () => openInSteps({ bench, load, target: await startTarget.bare() }, plan) },
      );
    };
    const perConnection = {
      one: { streams, streamsPerConnection: 1 },
      hundred: { streams, streamsPerConnection: 100 },
    };
    if (bench.isShort) {
      const runs = await measureGrowth({ streamsPerConnection: 1, steps: 1 });
      return [buildMemoryFigure(perConnection.one, runs)];
    }
    const oneRuns = await measureGrowth({ streamsPerConnection: 1, steps: 10 });
    const hundredRuns = await measureGrowth({ streamsPerConnection: 100, steps: 1 });
    return [
      buildMemoryFigure({ streams: 2000, streamsPerConnection: 1 }, oneRuns),
      buildMemoryFigure(perConnection.one, oneRuns),
      buildMemoryFigure(perConnection.hundred, hundredRuns),
      buildConnectFigure(perConnection.one, oneRuns.herald),
      buildConnectFigure(perConnection.hundred, hundredRuns.herald),
      buildCurveFigure('all idle streams, Herald', streams, oneRuns.herald),
      buildCurveFigure('all idle streams, bare loop', streams, oneRuns.bare),
    ];
  },
};

/**
 * Opens streams to a new server in steps, measures its memory after each step, and stops the server.
 */
async function openInSteps(
  { bench, load, target }: { bench: Bench; load: Load; target: NodeStreamTarget },
  plan: GrowthPlan,
): Promise<readonly Point[]> {
  const { child, name } = target;
  const { streams, streamsPerConnection, steps } = plan;
  const label = `${streams} on ${streams / streamsPerConnection}`;
  try {
    // Warm-up, because code and buffers that are allocated once do not belong to a stream.
    await openTargetStreams(load, { ...target, streams: target.streams.slice(0, warmUpStreams) });
    await load.closeStreams(name);
    await pause(500);
    await child.waitUntilIdle();
    const idleBytes = await measureResidentBytes(child);
    const points: Point[] = [];
    for (let step = 0; step < steps; step += 1) {
      const stepStreams = target.streams.slice(
        (step * streams) / steps,
        ((step + 1) * streams) / steps,
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
      points.push({ streams: ((step + 1) * streams) / steps, kib: bytes / 1024, loopDelayP99Ms });
    }
    const { lostCount } = await load.count(name, { firstNumber: 0, eventsPerStream: 0 });
    if (lostCount > 0)
      throw new Error(`Cannot measure: ${lostCount} of ${streams} streams have ended`);
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
  { streams, streamsPerConnection }: StreamCounts,
  { herald, bare }: Runs,
): Figure {
  const perStream = (points: readonly Point[]) =>
    (points.find((point) => point.streams === streams)?.kib ?? Number.NaN) / streams;
  return figure({
    subject: 'memory',
    what: `memory per idle stream, ${streams} on ${streams / streamsPerConnection} connections`,
    parameters: { streams, connections: streams / streamsPerConnection },
    unit: 'KiB',
    runs: herald.map(perStream),
    reference: { what: 'bare node:http2 loop', runs: bare.map(perStream) },
    isStableUnderLoad: true,
    ...(streamsPerConnection === 1 && { goal: { on: 'ratio', is: '<=', bound: 1.1 } }),
  });
}

/** Builds the figure of the event loop delay while streams open: the longest of all steps. */
function buildConnectFigure(
  { streams, streamsPerConnection }: StreamCounts,
  runs: readonly (readonly Point[])[],
): Figure {
  const connections = streams / streamsPerConnection;
  return delayFigure(
    {
      ...{ subject: 'memory', parameters: { streams, connections } },
      runs: runs.map((points) => Math.max(...points.map(({ loopDelayP99Ms }) => loopDelayP99Ms))),
    },
    `while ${streams} streams open on ${connections} connections`,
  );
}

/** Builds a figure with the median of all runs at each step as its curve. */
function buildCurveFigure(
  what: string,
  streams: number,
  runs: readonly (readonly Point[])[],
): Figure {
  const mib = (run: readonly Point[], step: number) => (run[step]?.kib ?? Number.NaN) / 1024;
  const steps = runs[0] ?? [];
  return figure({
    ...{ subject: 'memory', what, parameters: { streams }, unit: 'MiB' },
    runs: runs.map((run) => mib(run, run.length - 1)),
    curve: steps.map((point, step) => [
      point.streams,
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

async function startBareServer(bench: Bench, streams: number): Promise<NodeStreamTarget> {
  const options = { folder: bench.folder(), core: serverCore, env: bench.certificate };
  return createBareTarget(streams, await startScript('bare.ts', options));
}
