import { type LatencySummary, slotMs } from '../load/latencies.js';
import { LoadGenerator } from '../load/load-generator.js';
import type { LoopResult } from '../load/requests.js';
import type { StreamLoadCount } from '../load/stream-load.js';
import type { Child } from '../process/child.js';
import {
  createSettings,
  createStreamRequests,
  type Member,
  type PreparedDatabase,
  prepareDatabase,
  startHerald,
} from '../process/herald.js';
import { computeSpread, createFigure, type Figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';
import { createLoginPlan, hashPassword } from './logins.js';
import { eventBytes } from './support/stream-target.js';

const heartbeatMs = 2000;
const eventsPerSecond = 20;
/** Number of streams that receive the events. As many quiet streams receive only heartbeats. */
const listenerCount = 200;
const refreshingMemberCount = 4;

/** Results of a phase of a few seconds, with or without logins. */
interface Phase {
  readonly events: StreamLoadCount;
  /** The streams that get only heartbeats. */
  readonly quiet: StreamLoadCount;
  readonly refreshes: LoopResult;
  readonly loopDelayP99Ms: number;
}

interface LoginStorm {
  readonly bench: Bench;
  readonly herald: Child;
  readonly prepared: PreparedDatabase;
  /** Opens the streams, sends the events and refreshes, and measures them. */
  readonly sampler: LoadGenerator;
  /** Sends the logins. */
  readonly loginLoad: LoadGenerator;
}

export const subject: Subject = {
  name: 'login-storm',
  about: 'events, refreshes and heartbeats while logins use every core',
  seconds: 120,
  profile: { operation: 'delivered event', flameGraphRun: 'Herald, 64 concurrent logins' },
  isTooNoisyForSmoke: true,

  async run(bench: Bench): Promise<Figure[]> {
    const storm = await openStorm(bench);
    const seconds = bench.size({ smoke: 2, full: 8 });
    await runPhase(storm, { seconds: 1, logins: 16 }); // Warm-up.
    const [baseline, loaded]: [Phase[], Phase[]] = [[], []];
    for (let run = 0; run < bench.runs; run += 1) {
      bench.print(`run ${run + 1} of ${bench.runs}`);
      baseline.push(await runPhase(storm, { seconds, logins: 0 }));
      loaded.push(await runPhase(storm, { seconds, logins: 64 }));
    }
    return buildFigures(baseline, loaded);
  },
};

async function openStorm(bench: Bench): Promise<LoginStorm> {
  const settings = {
    ...createSettings(bench.createFolder(), bench.certificate),
    STREAM_HEARTBEAT: String(heartbeatMs),
  };
  const passwordHash = await hashPassword();
  const prepared = await prepareDatabase(bench.build, settings, {
    memberCount: 2 * listenerCount + refreshingMemberCount,
    passwordHash,
  });
  const herald = await bench.use(startHerald(bench.build, settings, { core: 'all' }));
  const sampler = await bench.use(LoadGenerator.start('all'));
  const loginLoad = await bench.use(LoadGenerator.start('all'));
  const port = herald.port;
  const streams = createStreamRequests(prepared.members);
  const plan = { port, protocol: 'h2', streamsPerConnection: 1, openingMax: 20 } as const;
  await sampler.openStreams('events', { ...plan, streams: streams.slice(0, listenerCount) });
  await sampler.openStreams('quiet', {
    ...plan,
    streams: streams.slice(listenerCount, 2 * listenerCount),
  });
  return { bench, herald, prepared, sampler, loginLoad };
}

/**
 * Measures events at a steady rate, refreshes, and quiet streams (heartbeats only), with or without
 * concurrent logins.
 */
async function runPhase(
  parts: LoginStorm,
  plan: { seconds: number; logins: number },
): Promise<Phase> {
  const { bench, herald, prepared, sampler } = parts;
  const count = eventsPerSecond * plan.seconds;
  for (const streams of ['events', 'quiet']) await sampler.reset(streams);
  const results: LoopResult[] = [];
  const name = plan.logins === 0 ? 'Herald, no logins' : `Herald, ${plan.logins} concurrent logins`;
  const { loopDelayP99Ms } = await bench.measureServer(herald, name, async () => {
    results.push(await runLoad(parts, { ...plan, count }));
    return count * listenerCount;
  });
  const [refreshes] = results;
  if (refreshes === undefined) throw new Error('Cannot refresh: no result');
  // The next phase continues with the refresh tokens of this one.
  const nextTokens = refreshes.nextBodies.map((body) => JSON.parse(body).token as string);
  for (const [index, member] of getRefreshingMembers(prepared).entries()) {
    Object.assign(member, { refreshToken: nextTokens[index] });
  }
  if (refreshes.refusedCount > 0) throw new Error(`Cannot refresh: ${refreshes.errorExample}`);
  const events = await sampler.count('events', { firstNumber: 0, eventsPerStream: count });
  if (events.wrongStreamCount > 0)
    throw new Error(`Cannot measure: ${events.wrongStreamCount} streams with wrong events`);
  const quiet = await sampler.count('quiet', { firstNumber: 0, eventsPerStream: 0 });
  return { events, quiet, refreshes, loopDelayP99Ms };
}

function getRefreshingMembers({ members }: PreparedDatabase): readonly Member[] {
  return members.slice(-refreshingMemberCount);
}

/**
 * Runs the load. Returns the result of the refreshes once every stream of `events` has received every
 * event and the logins have ended.
 */
async function runLoad(
  { herald, prepared, sampler, loginLoad }: LoginStorm,
  { seconds, logins, count }: { seconds: number; logins: number; count: number },
): Promise<LoopResult> {
  const port = herald.port;
  const { members, publishKey } = prepared;
  const durationMs = seconds * 1000;
  const headers = { authorization: `Bearer ${publishKey}` };
  const to = { users: members.slice(0, listenerCount).map(({ userId }) => String(userId)) };
  const loginsDone =
    logins === 0
      ? Promise.resolve()
      : loginLoad.runLoop(createLoginPlan(port, members, { connectionCount: logins, durationMs }));
  const [refreshes] = await Promise.all([
    sampler.runLoop({
      ...{
        port,
        path: '/token',
        responseCountMax: 1e9,
        nextBody: 'refresh',
        durationMsMax: durationMs,
        pauseMs: 20,
      },
      clients: getRefreshingMembers(prepared).map(({ refreshToken }) => ({
        headers: {},
        body: JSON.stringify({ token: refreshToken }),
      })),
    }),
    sampler.publish({
      ...{ port, protocol: 'h2', path: '/events', headers, to, bytes: eventBytes },
      ...{ perSecond: eventsPerSecond, count, perRequest: 1, firstNumber: 0 },
    }),
  ]);
  await sampler.waitForEvents('events', count * listenerCount);
  await loginsDone;
  return refreshes;
}

function buildFigures(baseline: readonly Phase[], loaded: readonly Phase[]): Figure[] {
  const parameters = {
    streams: 2 * listenerCount,
    'events per second': eventsPerSecond,
    logins: 64,
  };
  const base = { subject: 'login-storm', parameters, unit: 'ms' } as const;
  const buildLatencyFigure = (
    name: string,
    getLatency: (phase: Phase) => LatencySummary,
  ): Figure => {
    const parts = {
      ...{ ...base, what: `${name}, p99`, runs: loaded.map((phase) => getLatency(phase).p99Ms) },
      reference: { what: 'no logins', runs: baseline.map((phase) => getLatency(phase).p99Ms) },
      curve: buildTimeline(baseline, loaded, getLatency),
    };
    const baselineMedian = computeSpread(parts.reference.runs).median;
    const bound = Math.round(Math.max(50, 2 * baselineMedian));
    return createFigure({ ...parts, goal: { on: 'value', is: '<=', bound } });
  };
  return [
    buildLatencyFigure('publish to received', (one) => one.events.latency),
    buildLatencyFigure('/token', (one) => one.refreshes.latency),
    // The values of the references are at least 1 and 0.1 ms, so that the ratios are finite.
    createFigure({
      ...{ ...base, what: 'longest delay of a heartbeat' },
      runs: loaded.map(({ quiet }) => Math.max(0, quiet.longestGapMs - heartbeatMs)),
      reference: {
        what: 'no logins',
        runs: baseline.map(({ quiet }) => Math.max(1, quiet.longestGapMs - heartbeatMs)),
      },
      goal: { on: 'value', is: '<=', bound: 1000 },
      note: 'a heartbeat is sent at the nearest tick of a one-second timer, so up to 0.5 s late is by design',
    }),
    createFigure({
      ...{ ...base, what: 'event loop delay, p99' },
      runs: loaded.map(({ loopDelayP99Ms }) => loopDelayP99Ms),
      reference: {
        what: 'no logins',
        runs: baseline.map(({ loopDelayP99Ms }) => Math.max(0.1, loopDelayP99Ms)),
      },
    }),
  ];
}

/** Concatenates the timelines of the last baseline phase and the last loaded phase: x in seconds, y in ms. */
function buildTimeline(
  baseline: readonly Phase[],
  loaded: readonly Phase[],
  getLatency: (phase: Phase) => LatencySummary,
): (readonly [number, number])[] {
  return [baseline.at(-1), loaded.at(-1)]
    .flatMap((phase) => (phase === undefined ? [] : getLatency(phase).timelineMs))
    .map((longest, index) => [(index * slotMs) / 1000, longest] as const);
}
