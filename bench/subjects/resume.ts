import { createHash, randomBytes } from 'node:crypto';
import { type Database, sql, tuples } from '../../src/db/database.js';
import { H2Requester } from '../load/h2-requester.js';
import { LoadGenerator } from '../load/load-generator.js';
import { createMarkedData } from '../load/marked-events.js';
import type { StreamRequest } from '../load/stream-load.js';
import type { Child } from '../process/child.js';
import {
  createSettings,
  type Member,
  type PreparedDatabase,
  prepareDatabase,
  startHerald,
  withEmbeddedDatabase,
} from '../process/herald.js';
import { createDelayFigure, createFigure, type Figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';
import {
  eventBytes,
  type NodeStreamTarget,
  openBareTarget,
  openTargetStreams,
} from './support/stream-target.js';

/** Number of events that each client has missed. Each event is for one client only. */
const missedEventsPerClient = 10;

export const subject: Subject = {
  name: 'resume',
  about: 'clients resume, each with missed events, against a bare TLS and h2 connection',
  seconds: 360,
  profile: {
    operation: 'stream',
    flameGraphRun: 'Herald, resume',
    columns: '*Resume* opens a stream with `Last-Event-ID`; *fresh* opens one without it.',
  },

  async run(bench: Bench): Promise<Figure[]> {
    const clientCount = bench.size({ smoke: 200, full: 10_000, compared: 500 });
    const settings = createSettings(bench.createFolder(), bench.certificate);
    const prepared = await prepareDatabase(bench.build, settings, { memberCount: clientCount });
    const streamTokens = await withEmbeddedDatabase(settings, (db) =>
      insertStreamTokens(db, prepared.members),
    );
    const child = await bench.use(startHerald(bench.build, settings));
    const load = await bench.use(LoadGenerator.start());
    bench.print(`publishing ${clientCount * (missedEventsPerClient + 1)} events`);
    const lastSeenIds = await publishMissed(child, prepared);
    const herald: NodeStreamTarget = {
      ...{ name: 'Herald, resume', child, port: child.port, protocol: 'h2', headers: {} },
      streams: streamTokens.map((token, index) => toStreamRequest(token, lastSeenIds[index])),
    };
    // Fewer fresh streams suffice, because the cost per stream does not depend on the number of streams.
    const freshStreams = streamTokens
      .slice(0, bench.size({ smoke: 50, full: 2000, compared: 300 }))
      .map((token) => toStreamRequest(token));
    const fresh = { ...herald, name: 'Herald, fresh', streams: freshStreams };
    const warmUp = async (target: NodeStreamTarget) => {
      await measureResume({ bench, load, target: limitStreams(target, 300) });
      return target;
    };
    await warmUp(herald);
    const bare = bench.lazy(async () => warmUp(await openBareTarget(bench, clientCount)));
    const runs = await bench.runInterleaved(
      {
        resume: () =>
          measureResume({ bench, load, target: herald, eventsPerStream: missedEventsPerClient }),
        fresh: () => measureResume({ bench, load, target: fresh }),
      },
      {
        bare: async () => measureResume({ bench, load, target: await bare(), eventsPerStream: 0 }),
      },
    );
    return buildFigures(runs, clientCount);
  },
};

interface Run {
  readonly cpuMicrosPerOperation: number;
  readonly seconds: number;
  readonly loopDelayP99Ms: number;
  readonly loadBusyShare: number;
}

interface ResumeParts {
  readonly bench: Bench;
  readonly load: LoadGenerator;
  readonly target: NodeStreamTarget;
  /** Events that each stream has missed; if undefined, received events are not checked. */
  readonly eventsPerStream?: number;
}

/**
 * Measures the server while all streams open and receive their missed events. Throws when an event is
 * missing, duplicate or out of order, unless `eventsPerStream` is undefined.
 */
async function measureResume({ bench, load, target, eventsPerStream }: ResumeParts): Promise<Run> {
  const { name, child, streams } = target;
  let loadBusyShare = 0;
  const { cpuMicrosPerOperation, seconds, loopDelayP99Ms } = await bench.measureServer(
    child,
    name,
    async () => {
      loadBusyShare = await load.measureBusyShare(async () => {
        await openTargetStreams(load, target);
        await load.waitForEvents(name, (eventsPerStream ?? 0) * streams.length);
      });
      return streams.length;
    },
  );
  if (eventsPerStream !== undefined) {
    const { wrongStreamCount, outOfOrderCount, lostCount } = await load.count(name, {
      firstNumber: 1,
      eventsPerStream,
    });
    if (wrongStreamCount + outOfOrderCount + lostCount > 0) {
      throw new Error(
        `Cannot resume: ${wrongStreamCount} streams with wrong events, ${outOfOrderCount} events out of order, ${lostCount} streams lost`,
      );
    }
  }
  await load.closeStreams(name);
  await child.waitUntilIdle();
  return { cpuMicrosPerOperation, seconds, loopDelayP99Ms, loadBusyShare };
}

function buildFigures(
  { resume, fresh, bare }: Record<'resume' | 'fresh' | 'bare', readonly Run[]>,
  clientCount: number,
): Figure[] {
  const base = {
    subject: 'resume',
    parameters: { clients: clientCount, 'missed events': missedEventsPerClient },
  };
  const getCpu = (runs: readonly Run[]) => runs.map((run) => run.cpuMicrosPerOperation);
  const reference = { what: 'bare TLS and h2 connect', runs: getCpu(bare) };
  const loadBusyShare = Math.max(...resume.map((run) => run.loadBusyShare));
  const perSecond = (runs: readonly Run[]) => runs.map((run) => 1e6 / run.cpuMicrosPerOperation);
  return [
    createFigure({
      ...{ ...base, what: 'server CPU per resume', unit: 'us', runs: getCpu(resume), reference },
      goal: { on: 'ratio', is: '<=', bound: 1.3 },
      isStableUnderLoad: true,
      note: `each event was checked; the load generator used ${Math.round(loadBusyShare * 100)} % of a core`,
    }),
    createFigure({
      ...base,
      what: 'server CPU per fresh stream',
      unit: 'us',
      runs: getCpu(fresh),
      reference,
    }),
    createFigure({
      ...{ ...base, what: 'bare connects per CPU second', unit: '/s', runs: perSecond(bare) },
    }),
    createFigure({ ...base, what: 'resumes per CPU second', unit: '/s', runs: perSecond(resume) }),
    createFigure({ ...base, what: 'connects per CPU second', unit: '/s', runs: perSecond(fresh) }),
    createFigure({
      ...{ ...base, what: 'time until all clients have resumed', unit: 's' },
      runs: resume.map((run) => run.seconds),
      reference: { what: 'bare', runs: bare.map((run) => run.seconds) },
    }),
    createDelayFigure(
      { ...base, runs: resume.map((run) => run.loopDelayP99Ms) },
      'while all clients resume',
    ),
    createDelayFigure(
      { ...base, runs: fresh.map((run) => run.loopDelayP99Ms) },
      'while fresh streams open',
    ),
  ];
}

function toStreamRequest(token: string, lastEventId?: string): StreamRequest {
  const resume = lastEventId === undefined ? {} : { 'last-event-id': lastEventId };
  return { path: `/stream/live/${token}`, headers: { accept: 'text/event-stream', ...resume } };
}

function limitStreams(target: NodeStreamTarget, count: number): NodeStreamTarget {
  return { ...target, streams: target.streams.slice(0, count) };
}

/**
 * Inserts a stream token for each member, created an hour ago and with a valid lease. Returns the
 * tokens.
 */
export async function insertStreamTokens(
  db: Database,
  members: readonly Member[],
): Promise<string[]> {
  const now = Date.now();
  const tokens = members.map(() => randomBytes(64).toString('hex'));
  for (let start = 0; start < members.length; start += 500) {
    const rows = members.slice(start, start + 500).map(({ userId, sessionId }, index) => {
      const hash = createHash('sha256')
        .update(tokens[start + index] ?? '')
        .digest('hex');
      return [hash, userId, sessionId, now - 3_600_000, now - 3_000_000, now + 36_000_000];
    });
    await db.execute(
      sql`insert into stream_tokens (token_hash, user_id, session_id, created_at, expires_at,
        lease_until) values ${tuples(rows)}`,
    );
  }
  return tokens;
}

/**
 * Publishes to each member one event, which counts as seen, and then the events that the member misses.
 * Returns the ids of the seen events.
 */
async function publishMissed(
  child: Child,
  { members, publishKey }: PreparedDatabase,
): Promise<string[]> {
  const requester = await H2Requester.open(child.port);
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${publishKey}` };
  const seenIds: string[] = [];
  for (let number = 0; number <= missedEventsPerClient; number += 1) {
    for (let start = 0; start < members.length; start += 500) {
      const events = members.slice(start, start + 500).map(({ userId }) => ({
        to: { users: [String(userId)] },
        data: createMarkedData(number, eventBytes),
      }));
      const body = Buffer.from(JSON.stringify(events));
      const { text } = await requester.send({ method: 'POST', path: '/events', headers }, body);
      const { ids } = JSON.parse(text) as { ids?: string[] };
      if (ids === undefined) throw new Error(`Cannot publish: ${text}`);
      if (number === 0) seenIds.push(...ids);
    }
  }
  requester.close();
  return seenIds;
}
