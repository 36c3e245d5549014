import { join } from 'node:path';
import { loadSqlite } from '../../src/db/sqlite/load.js';
import { LoadGenerator } from '../load/load-generator.js';
import type { Child } from '../process/child.js';
import {
  createSettings,
  type PreparedDatabase,
  prepareDatabase,
  type Settings,
  startHerald,
} from '../process/herald.js';
import type { ServerUsage } from '../process/server-usage.js';
import { createDelayFigure, createFigure, type Figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';

const operations = ['/token', '/stream/token', 'resume'] as const;

type Operation = (typeof operations)[number];

const missedEventsPerMember = 10;
const memberCount = 80;

type Cost = Pick<ServerUsage, 'cpuMicrosPerOperation' | 'loopDelayP99Ms'>;

/** A Herald server with `rows` rows of other users in each table that grows with use. */
interface BenchServer {
  readonly rows: number;
  readonly child: Child;
  readonly prepared: PreparedDatabase;
  /** The body of the next `/token` request of each member. */
  refreshBodies: readonly string[];
}

export const subject: Subject = {
  name: 'growth',
  about: 'server CPU per request with a thousand to a million rows in each table',
  seconds: 300,
  profile: { operation: 'request', flameGraphRun: '/token, 1000000 rows' },

  async run(bench: Bench): Promise<Figure[]> {
    const rowCounts = bench.isShort ? [1000, 20_000] : [1000, 10_000, 100_000, 1_000_000];
    const load = await bench.use(LoadGenerator.start());
    const servers: BenchServer[] = [];
    for (const rows of rowCounts) {
      bench.print(`${rows} rows`);
      servers.push(await startBenchServer(bench, rows));
    }
    const costs = new Map<Operation, Record<string, Cost[]>>();
    for (const operation of operations) {
      bench.print(operation);
      // Warm-up, not counted.
      for (const server of servers) await measureCost(bench, load, server, operation);
      const measurements = servers.map((server) => [
        String(server.rows),
        () => measureCost(bench, load, server, operation),
      ]);
      costs.set(operation, await bench.runInterleaved(Object.fromEntries(measurements)));
    }
    return operations.flatMap((operation) =>
      buildFigures(operation, rowCounts, costs.get(operation) ?? {}),
    );
  },
};

/**
 * Builds the figures for each number of rows. The reference is the smallest number of rows; only the
 * largest has a goal.
 */
function buildFigures(
  operation: Operation,
  rowCounts: readonly number[],
  costs: Readonly<Record<string, readonly Cost[]>>,
): Figure[] {
  const [fewestRows = 0] = rowCounts;
  const getCpu = (rows: number) =>
    (costs[rows] ?? []).map(({ cpuMicrosPerOperation }) => cpuMicrosPerOperation);
  return rowCounts.flatMap((rows, index) => {
    const base = { subject: 'growth', parameters: { request: operation, rows, dialect: 'sqlite' } };
    const delays = (costs[rows] ?? []).map(({ loopDelayP99Ms }) => loopDelayP99Ms);
    return [
      createFigure({
        ...{ ...base, what: `server CPU per ${operation}, ${rows} rows`, unit: 'us' },
        runs: getCpu(rows),
        reference: { what: `${fewestRows} rows`, runs: getCpu(fewestRows) },
        ...(index === rowCounts.length - 1 && {
          goal: { on: 'ratio', is: '<=', bound: 1.2 },
          isStableUnderLoad: true,
        }),
      }),
      createDelayFigure({ ...base, runs: delays }, `during ${operation}, ${rows} rows`),
    ];
  });
}

/** Measures one operation on one server. */
async function measureCost(
  bench: Bench,
  load: LoadGenerator,
  server: BenchServer,
  operation: Operation,
): Promise<Cost> {
  const { child, prepared, rows } = server;
  const port = child.port;
  if (operation === 'resume') return measureResumeCost(bench, load, server);
  const isRefresh = operation === '/token';
  const clients = prepared.members.slice(0, 16).map(({ accessToken }, index) => ({
    headers: isRefresh ? {} : { authorization: `Bearer ${accessToken}` },
    body: isRefresh ? (server.refreshBodies[index] ?? '') : '{}',
  }));
  return bench.measureServer(child, `${operation}, ${rows} rows`, async () => {
    const { refusedCount, responseCount, errorExample, nextBodies } = await load.runLoop({
      ...{
        port,
        path: operation,
        clients,
        durationMsMax: 60_000,
        responseCountMax: bench.size({ smoke: 200, full: 3000 }),
      },
      nextBody: isRefresh ? 'refresh' : 'same',
    });
    if (refusedCount > 0) throw new Error(`Cannot measure ${operation}: ${errorExample}`);
    if (isRefresh) server.refreshBodies = nextBodies;
    return responseCount;
  });
}

/**
 * Resumes the streams of all members. Throws unless each stream gets its missed events once, in order.
 */
async function measureResumeCost(
  bench: Bench,
  load: LoadGenerator,
  { child, prepared, rows }: BenchServer,
): Promise<Cost> {
  const rounds = bench.size({ smoke: 1, full: 3 });
  const usages: Cost[] = [];
  for (let round = 0; round < rounds; round += 1) {
    usages.push(
      await bench.measureServer(child, `resume, ${rows} rows`, async () => {
        await load.openStreams('growth', {
          ...{ port: child.port, protocol: 'h2', streamsPerConnection: 1, openingMax: 20 },
          streams: prepared.members.map(({ accessToken, userId }) => ({
            path: '/stream/live',
            headers: {
              accept: 'text/event-stream',
              authorization: `Bearer ${accessToken}`,
              'last-event-id': `bench-${getLastSeenSeq(rows, userId)}`,
            },
          })),
        });
        await load.waitForEvents('growth', prepared.members.length * missedEventsPerMember);
        return prepared.members.length;
      }),
    );
    const { outOfOrderCount, lostCount, wrongStreamCount } = await load.count('growth', {
      firstNumber: 1,
      eventsPerStream: missedEventsPerMember,
    });
    await load.closeStreams('growth');
    if (wrongStreamCount + outOfOrderCount + lostCount > 0) {
      const counts = `${outOfOrderCount} events out of order, ${lostCount} streams lost`;
      throw new Error(`Cannot resume: ${wrongStreamCount} streams with wrong events, ${counts}`);
    }
  }
  const cpuMicrosPerOperation =
    usages.reduce((sum, one) => sum + one.cpuMicrosPerOperation, 0) / rounds;
  return {
    cpuMicrosPerOperation,
    loopDelayP99Ms: Math.max(...usages.map(({ loopDelayP99Ms }) => loopDelayP99Ms)),
  };
}

async function startBenchServer(bench: Bench, rows: number): Promise<BenchServer> {
  const settings: Settings = {
    ...createSettings(bench.createFolder(), bench.certificate),
    EVENT_LOG_MAX_EVENTS: '100000000',
    EVENT_LOG_MAX_BYTES: '100000000000',
  };
  const prepared = await prepareDatabase(bench.build, settings, { memberCount });
  await insertFillerRows(settings['DATA_DIR'] ?? '', rows);
  const child = await bench.use(startHerald(bench.build, settings));
  const refreshBodies = prepared.members.map(({ refreshToken: token }) =>
    JSON.stringify({ token }),
  );
  return { rows, child, prepared, refreshBodies };
}

/** Returns the `seq` of the last event that a member has seen: its event in the first stretch. */
function getLastSeenSeq(rows: number, userId: number): number {
  const step = Math.floor(rows / (missedEventsPerMember + 1));
  return ((userId - 1) % step) + 1;
}

/**
 * Inserts `rows` realistic rows of other users into each table that grows with use. SQLite generates the
 * rows in one transaction. The event log consists of `missedEventsPerMember + 1` stretches of `step`
 * events each. In each stretch, the first events are for the members, one event each, and the rest are
 * for other users.
 */
async function insertFillerRows(folder: string, rows: number): Promise<void> {
  const Driver = await loadSqlite();
  const db = new Driver(join(folder, 'herald.db'));
  const numbers = `with recursive numbers (n) as
    (select 1 union all select n + 1 from numbers where n < ${rows})`;
  const now = Date.now();
  const expiresAt = now + 36_000_000;
  db.exec('pragma synchronous = off');
  db.exec('begin');
  db.exec(`${numbers} insert into users (username, username_key, password_hash, first_name, last_name,
      password_changed_at, created_at, updated_at)
    select 'other-' || n, 'other-' || n, 'none', 'First', 'Last', ${now}, ${now}, ${now} from numbers`);
  db.exec(`${numbers} insert into sessions (id, user_id, selector, cur_hash, created_at, refreshed_at,
      idle_expires_at, absolute_expires_at)
    select lower(hex(randomblob(16))), ${memberCount} + n, lower(hex(randomblob(16))),
      lower(hex(randomblob(32))), ${now} - n, ${now} - n, ${expiresAt} + n, ${expiresAt} + n from numbers`);
  db.exec(`${numbers} insert into stream_tokens (token_hash, user_id, session_id, created_at,
      expires_at, lease_until)
    select lower(hex(randomblob(32))), ${memberCount} + n, lower(hex(randomblob(16))), ${now} - n,
      ${expiresAt}, ${expiresAt} + n from numbers`);
  db.exec(`insert into log_head (id, epoch, seq, trimmed_seq, events, bytes)
      values (1, 'bench', ${rows}, 0, ${rows}, ${rows} * 200)
    on conflict (id) do update
      set epoch = 'bench', seq = ${rows}, events = ${rows}, bytes = ${rows} * 200`);
  const step = Math.floor(rows / (missedEventsPerMember + 1));
  db.exec(`${numbers} insert into events (seq, data, created_at)
    select n, '~' || printf('%010d', (n - 1) / ${step}) || '000000000000000;' || printf('%170s', ''),
      ${now} from numbers`);
  db.exec(`${numbers} insert into event_audiences (audience, seq)
    select case when (n - 1) % ${step} < ${memberCount} and n <= ${step * (missedEventsPerMember + 1)}
      then 'u:' || ((n - 1) % ${step} + 1) else 'u:' || (1000000 + n % 100000) end, n from numbers`);
  db.exec('commit');
  db.exec('pragma wal_checkpoint(truncate)');
  db.close();
}
