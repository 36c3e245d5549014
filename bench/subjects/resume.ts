import { createHash, randomBytes } from 'node:crypto';
import { type Database, sql, tuples } from '../../src/db/database.js';
import { Load } from '../load/load.js';
import { markedData } from '../load/marked-events.js';
import { Requester } from '../load/requests.js';
import type { StreamRequest } from '../load/stream-load.js';
import type { Child } from '../process/child.js';
import {
  type Member,
  type Prepared,
  prepare,
  settingsFor,
  startHerald,
  withEmbedded,
} from '../process/herald.js';
import { delayFigure, type Figure, figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';
import {
  eventBytes,
  type NodeStreamTarget,
  openBareTarget,
  openTargetStreams,
} from './support/stream-target.js';

/** Events that each client has missed, all addressed to it alone. */
const missed = 10;

export const subject: Subject = {
  name: 'resume',
  about: 'clients resume, each with missed events, against a bare TLS and h2 connect',
  seconds: 360,
  profile: { operation: 'stream', drawn: 'Herald, resume' },

  async run(bench: Bench): Promise<Figure[]> {
    const clients = bench.size(200, 10_000, 500);
    const settings = settingsFor(bench.folder(), bench.certificate);
    const prepared = await prepare(bench.build, settings, { members: clients });
    const tokens = await withEmbedded(settings, (db) => insertStreamTokens(db, prepared.members));
    const child = await bench.use(startHerald(bench.build, settings));
    const load = await bench.use(Load.start());
    bench.print(`publishing ${clients * (missed + 1)} events`);
    const lastSeen = await publishMissed(child, prepared);
    const herald: NodeStreamTarget = {
      ...{ name: 'Herald, resume', child, port: Number(child.ready), protocol: 'h2', headers: {} },
      streams: tokens.map((token, index) => toStreamRequest(token, lastSeen[index])),
    };
    // Fewer are enough, because the cost of one does not depend on their number.
    const newcomers = tokens
      .slice(0, bench.size(50, 2000, 300))
      .map((token) => toStreamRequest(token));
    const fresh = { ...herald, name: 'Herald, fresh', streams: newcomers };
    const warmUp = async (target: NodeStreamTarget) => {
      await measureResume({ bench, load, target: takeSome(target, 300) });
      return target;
    };
    await warmUp(herald);
    const bare = bench.lazy(async () => warmUp(await openBareTarget(bench, clients)));
    const runs = await bench.interleaved(
      {
        resume: () => measureResume({ bench, load, target: herald, each: missed }),
        fresh: () => measureResume({ bench, load, target: fresh }),
      },
      { bare: async () => measureResume({ bench, load, target: await bare(), each: 0 }) },
    );
    return buildFigures(runs, clients);
  },
};

interface Run {
  readonly cpu: number;
  readonly seconds: number;
  readonly delay: number;
  readonly loadBusy: number;
}

interface ResumeParts {
  readonly bench: Bench;
  readonly load: Load;
  readonly target: NodeStreamTarget;
  /** Events that each stream has missed; if undefined, they are not checked. */
  readonly each?: number;
}

/**
 * Opens all streams, waits until each has received its missed events, and returns the server's CPU
 * per stream. Throws when an event is missing, duplicated or out of order.
 */
async function measureResume({ bench, load, target, each }: ResumeParts): Promise<Run> {
  const { name, child, streams } = target;
  let loadBusy = 0;
  const { cpu, seconds, delay } = await bench.watch(child, name, async () => {
    const { busy } = await load.busyDuring(async () => {
      await openTargetStreams(load, target);
      await load.received(name, (each ?? 0) * streams.length);
    });
    loadBusy = busy;
    return streams.length;
  });
  if (each !== undefined) {
    const { wrong, disorder, lost } = await load.count(name, { first: 1, each });
    if (wrong + disorder + lost > 0) {
      throw new Error(`Cannot count: ${wrong} wrong, ${disorder} out of order, ${lost} lost`);
    }
  }
  await load.closeStreams(name);
  await child.quiet();
  return { cpu, seconds, delay, loadBusy };
}

function buildFigures(
  { resume, fresh, bare }: Record<'resume' | 'fresh' | 'bare', readonly Run[]>,
  clients: number,
): Figure[] {
  const base = { subject: 'resume', parameters: { clients, 'events missed': missed } };
  const cpu = (runs: readonly Run[]) => runs.map((run) => run.cpu);
  const reference = { what: 'bare TLS and h2 connect', runs: cpu(bare) };
  const loadBusy = Math.max(...resume.map((run) => run.loadBusy));
  const perSecond = (runs: readonly Run[]) => runs.map((run) => 1e6 / run.cpu);
  return [
    figure({
      ...{ ...base, what: 'server CPU a resume', unit: 'us', runs: cpu(resume), reference },
      goal: { on: 'ratio', is: '<=', bound: 1.3 },
      isSteady: true,
      note: `each event checked; load ${Math.round(loadBusy * 100)} % of a core`,
    }),
    figure({ ...base, what: 'server CPU a fresh stream', unit: 'us', runs: cpu(fresh), reference }),
    figure({
      ...{ ...base, what: 'bare connects a CPU second', unit: '/s', runs: perSecond(bare) },
    }),
    figure({ ...base, what: 'resumes a CPU second', unit: '/s', runs: perSecond(resume) }),
    figure({ ...base, what: 'connects a CPU second', unit: '/s', runs: perSecond(fresh) }),
    figure({
      ...{ ...base, what: 'until the last is back', unit: 's' },
      runs: resume.map((run) => run.seconds),
      reference: { what: 'bare', runs: bare.map((run) => run.seconds) },
    }),
    delayFigure({ ...base, runs: resume.map((run) => run.delay) }, 'while all come back'),
    delayFigure({ ...base, runs: fresh.map((run) => run.delay) }, 'while fresh streams open'),
  ];
}

function toStreamRequest(token: string, lastEventId?: string): StreamRequest {
  const resume = lastEventId === undefined ? {} : { 'last-event-id': lastEventId };
  return { path: `/stream/live/${token}`, headers: { accept: 'text/event-stream', ...resume } };
}

function takeSome(target: NodeStreamTarget, count: number): NodeStreamTarget {
  return { ...target, streams: target.streams.slice(0, count) };
}

/** Inserts stream tokens that were first used an hour ago. */
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

/** Publishes one seen event per member, then the missed ones. Returns the ids of the seen ones. */
async function publishMissed(child: Child, { members, publishKey }: Prepared): Promise<string[]> {
  const requester = await Requester.open(Number(child.ready));
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${publishKey}` };
  const seen: string[] = [];
  for (let number = 0; number <= missed; number += 1) {
    for (let start = 0; start < members.length; start += 500) {
      const events = members.slice(start, start + 500).map(({ userId }) => ({
        to: { users: [String(userId)] },
        data: markedData(number, eventBytes),
      }));
      const body = Buffer.from(JSON.stringify(events));
      const { text } = await requester.send({ method: 'POST', path: '/events', headers }, body);
      const { ids } = JSON.parse(text) as { ids?: string[] };
      if (ids === undefined) throw new Error(`Cannot publish: ${text}`);
      if (number === 0) seen.push(...ids);
    }
  }
  requester.close();
  return seen;
}
