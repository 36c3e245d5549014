import { type LatencySummary, slotMs } from '../load/latencies.js';
import { Load } from '../load/load.js';
import type { LoopResult } from '../load/requests.js';
import type { StreamLoadCount } from '../load/stream-load.js';
import type { Child } from '../process/child.js';
import {
  type Member,
  type Prepared,
  prepare,
  settingsFor,
  startHerald,
  streamsOf,
} from '../process/herald.js';
import { computeSpread, type Figure, figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';
import { hashPassword, loginPlan } from './logins.js';
import { eventBytes } from './support/stream-target.js';

const heartbeatMs = 2000;
const perSecond = 20;
const listeners = 200;

interface Phase {
  readonly events: StreamLoadCount;
  readonly quiet: StreamLoadCount;
  readonly refreshes: LoopResult;
  readonly delay: number;
}

interface Parts {
  readonly bench: Bench;
  readonly herald: Child;
  readonly prepared: Prepared;
  readonly sampler: Load;
  readonly storm: Load;
}

export const subject: Subject = {
  name: 'login-storm',
  about: 'events, refreshes and heartbeats while logins take every core',
  seconds: 120,
  profile: { operation: 'delivered event', drawn: 'Herald, 64 logins at once' },
  isTooNoisyForSmoke: true,

  async run(bench: Bench): Promise<Figure[]> {
    const parts = await open(bench);
    const seconds = bench.size(2, 8);
    await runPhase(parts, { seconds: 1, logins: 16 }); // Warm-up.
    const [calm, stormy]: [Phase[], Phase[]] = [[], []];
    for (let run = 0; run < bench.runs; run += 1) {
      bench.print(`run ${run + 1} of ${bench.runs}`);
      calm.push(await runPhase(parts, { seconds, logins: 0 }));
      stormy.push(await runPhase(parts, { seconds, logins: 64 }));
    }
    return buildFigures(calm, stormy);
  },
};

async function open(bench: Bench): Promise<Parts> {
  const settings = {
    ...settingsFor(bench.folder(), bench.certificate),
    STREAM_HEARTBEAT: String(heartbeatMs),
  };
  const passwordHash = await hashPassword();
  const prepared = await prepare(bench.build, settings, {
    members: 2 * listeners + 4,
    passwordHash,
  });
  const herald = await bench.use(startHerald(bench.build, settings, { core: 'all' }));
  const sampler = await bench.use(Load.start('all'));
  const storm = await bench.use(Load.start('all'));
  const port = Number(herald.ready);
  const streams = streamsOf(prepared.members);
  const plan = { port, protocol: 'h2', streamsPerConnection: 1, atOnce: 20 } as const;
  await sampler.openStreams('events', { ...plan, streams: streams.slice(0, listeners) });
  await sampler.openStreams('quiet', { ...plan, streams: streams.slice(listeners, 2 * listeners) });
  return { bench, herald, prepared, sampler, storm };
}

/** Measures events and refreshes at steady rates, and idle streams, with or without logins. */
async function runPhase(parts: Parts, size: { seconds: number; logins: number }): Promise<Phase> {
  const { bench, herald, prepared, sampler } = parts;
  const count = perSecond * size.seconds;
  for (const streams of ['events', 'quiet']) await sampler.reset(streams);
  const all: LoopResult[] = [];
  const name = size.logins === 0 ? 'Herald, calm' : `Herald, ${size.logins} logins at once`;
  const { delay } = await bench.watch(herald, name, async () => {
    all.push(await load(parts, { ...size, count }));
    return count * listeners;
  });
  const [refreshes] = all;
  if (refreshes === undefined) throw new Error('Cannot refresh: no answer');
  // The next phase continues with the refresh tokens of this one.
  const next = refreshes.bodies.map((body) => JSON.parse(body).token as string);
  for (const [index, member] of getRefreshingMembers(prepared).entries()) {
    Object.assign(member, { refreshToken: next[index] });
  }
  if (refreshes.refused > 0) throw new Error(`Cannot refresh: ${refreshes.example}`);
  const events = await sampler.count('events', { first: 0, each: count });
  if (events.wrong > 0) throw new Error(`Cannot count: ${events.wrong} streams wrong`);
  const quiet = await sampler.count('quiet', { first: 0, each: 0 });
  return { events, quiet, refreshes, delay };
}

function getRefreshingMembers({ members }: Prepared): readonly Member[] {
  return members.slice(-4);
}

/** Resolves when all streams have received every event, with the result of the refreshes. */
async function load(
  { herald, prepared, sampler, storm }: Parts,
  { seconds, logins, count }: { seconds: number; logins: number; count: number },
): Promise<LoopResult> {
  const port = Number(herald.ready);
  const { members, publishKey } = prepared;
  const ms = seconds * 1000;
  const headers = { authorization: `Bearer ${publishKey}` };
  const to = { users: members.slice(0, listeners).map(({ userId }) => String(userId)) };
  const storming =
    logins === 0
      ? Promise.resolve()
      : storm.loop(loginPlan(port, members, { connections: logins, ms }));
  const [refreshes] = await Promise.all([
    sampler.loop({
      ...{ port, path: '/token', count: 1e9, next: 'refresh', msMax: ms, pauseMs: 20 },
      clients: getRefreshingMembers(prepared).map(({ refreshToken }) => ({
        headers: {},
        body: JSON.stringify({ token: refreshToken }),
      })),
    }),
    sampler.publish({
      ...{ port, protocol: 'h2', path: '/events', headers, to, bytes: eventBytes },
      ...{ perSecond, count, perRequest: 1, firstNumber: 0 },
    }),
  ]);
  await sampler.received('events', count * listeners);
  await storming;
  return refreshes;
}

function buildFigures(calm: readonly Phase[], stormy: readonly Phase[]): Figure[] {
  const parameters = { streams: 2 * listeners, 'events a second': perSecond, logins: 64 };
  const base = { subject: 'login-storm', parameters, unit: 'ms' } as const;
  const compare = (name: string, of: (phase: Phase) => LatencySummary): Figure => {
    const parts = {
      ...{ ...base, what: `${name}, p99`, runs: stormy.map((phase) => of(phase).p99) },
      reference: { what: 'idle', runs: calm.map((phase) => of(phase).p99) },
      curve: buildTimeline(calm, stormy, of),
    };
    const idle = computeSpread(parts.reference.runs).median;
    const bound = Math.round(Math.max(50, 2 * idle));
    return figure({ ...parts, goal: { on: 'value', is: '<=', bound } });
  };
  return [
    compare('publish to received', (one) => one.events.latency),
    compare('/token', (one) => one.refreshes.latency),
    figure({
      ...{ ...base, what: 'heartbeat late by, longest' },
      runs: stormy.map(({ quiet }) => Math.max(0, quiet.longestSilenceMs - heartbeatMs)),
      reference: {
        what: 'idle',
        runs: calm.map(({ quiet }) => Math.max(1, quiet.longestSilenceMs - heartbeatMs)),
      },
      goal: { on: 'value', is: '<=', bound: 1000 },
      note: 'one timer looks at all heartbeats once a second, so up to 0.6 s is by design',
    }),
    figure({
      ...{ ...base, what: 'event loop delay, p99' },
      runs: stormy.map(({ delay }) => delay),
      reference: { what: 'idle', runs: calm.map(({ delay }) => Math.max(0.1, delay)) },
    }),
  ];
}

/** Concatenates the timelines of the last calm phase and the last storm; x in seconds. */
function buildTimeline(
  calm: readonly Phase[],
  stormy: readonly Phase[],
  of: (phase: Phase) => LatencySummary,
): (readonly [number, number])[] {
  return [calm.at(-1), stormy.at(-1)]
    .flatMap((phase) => (phase === undefined ? [] : of(phase).timeline))
    .map((longest, index) => [(index * slotMs) / 1000, longest] as const);
}
