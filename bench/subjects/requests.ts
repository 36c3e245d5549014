import type { DatabaseServerOptions } from '../../src/db/options.js';
import { PostgresDatabase } from '../../src/db/postgres/postgres.js';
import { getCurrentText } from '../../src/db/rotated-file.js';
import { findServer } from '../../test/support/databases/test-server.js';
import { H1Requester } from '../load/h1-requester.js';
import { h2load } from '../load/h2load.js';
import { LoadGenerator } from '../load/load-generator.js';
import { isInstalled } from '../machine.js';
import type { Child } from '../process/child.js';
import {
  createSettings,
  insertMembers,
  runCommand,
  type Settings,
  startHerald,
} from '../process/herald.js';
import { createDelayFigure, createFigure, type Figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';
import { password } from './logins.js';
import { installPeers, startPeer } from './support/peers.js';

const connectionCount = 16;
/** Refresh tokens per run: more than connections; see `Http1LoadPlan.firstBodies`. */
const tokensPerRun = 2 * connectionCount + 1;

interface ServerUnderTest {
  readonly name: string;
  readonly child: Child;
  /**
   * One token per user. The requests use the tokens in rotation, because a real user requests stream
   * tokens only occasionally. The Express example has a single token.
   */
  readonly accessTokens: readonly string[];
  /**
   * Returns unused refresh tokens. Each run starts with new ones, because the tokens of the last
   * responses of the previous run may be lost.
   */
  takeUnusedTokens(): Promise<readonly string[]>;
  /** An API key with the scope `tickets`. Only Herald has one. */
  readonly apiKey?: string;
}

interface Run {
  readonly perSecond: number;
  readonly cpuMicrosPerOperation: number;
  readonly loopDelayP99Ms: number;
}

const paths = ['/stream/token', '/token'] as const;

type Path = (typeof paths)[number] | '/v1/tickets';

export const subject: Subject = {
  name: 'requests',
  about: '/stream/token and /token per second on PostgreSQL, against the Express example; tickets',
  seconds: 150,
  profile: { operation: 'request', flameGraphRun: 'Herald, /stream/token' },
  // The CPU of Express depends on other load: within a day the ratio varied from 0.13 to 0.37.
  isTooNoisyForSmoke: true,

  async run(bench: Bench): Promise<Figure[]> {
    const serverOrReason = await findServer('postgres');
    if (typeof serverOrReason === 'string' || (bench.hasReferences && !installPeers(bench))) {
      const reason =
        typeof serverOrReason === 'string' ? serverOrReason : 'bench/peers is not installed';
      bench.print(`skipped: ${reason}`);
      return [];
    }
    const databaseServer = serverOrReason;
    const { options } = databaseServer;
    const seconds = bench.size({ smoke: 1, full: 4 });
    // Refresh tokens of earlier logins, which the Express example never deletes.
    const rows = bench.size({ smoke: 1000, full: 10_000 });
    const expressDatabase = `${options.database}_express`;
    await databaseServer.administer(`create database ${options.database}`);
    await databaseServer.administer(`create database ${expressDatabase}`);
    bench.onClose(async () => {
      await databaseServer.administer(`drop database if exists ${expressDatabase} with (force)`);
      await databaseServer.drop();
    });
    const load = await bench.use(LoadGenerator.start());
    const heraldServer = await openHerald(bench, options, rows);
    const url = `postgres://${options.username}:${options.password}@${options.host}:${options.port}`;
    const getExpressRun = bench.lazy(async () => {
      const server = await openExpressExample(bench, `${url}/${expressDatabase}`, rows);
      return createLoadRun({ bench, load }, server, seconds);
    });
    const herald = createLoadRun({ bench, load }, heraldServer, seconds);
    const express = async (path: Path) => (await getExpressRun())(path);
    const figures: Figure[] = [];
    for (const path of paths) {
      bench.print(path);
      await herald(path);
      if (bench.hasReferences) await express(path);
      const runs = await bench.runInterleaved(
        { herald: () => herald(path) },
        { express: () => express(path) },
      );
      figures.push(...buildFigures(path, rows, runs));
    }
    bench.print('/v1/tickets');
    await herald('/v1/tickets');
    const { tickets, tokens } = await bench.runInterleaved(
      { tickets: () => herald('/v1/tickets') },
      { tokens: () => herald('/stream/token') },
    );
    figures.push(buildTicketFigure(rows, tickets, tokens));
    if (bench.isShort) return figures;
    if (isInstalled('h2load')) figures.push(...(await measureOverH2(bench, heraldServer, rows)));
    else bench.print('h2load is not installed; bench/tools.sh installs it');
    return figures;
  },
};

function buildFigures(
  path: Path,
  rows: number,
  { herald, express }: { herald: readonly Run[]; express: readonly Run[] },
): Figure[] {
  const base = {
    subject: 'requests',
    parameters: { connections: connectionCount, rows, protocol: 'http/1.1' },
  };
  const what = 'Express example';
  return [
    createFigure({
      ...{
        ...base,
        what: `${path} per second`,
        unit: '/s',
        runs: herald.map((run) => run.perSecond),
      },
      reference: { what, runs: express.map((run) => run.perSecond) },
      goal: { on: 'ratio', is: '>=', bound: 5 },
    }),
    createFigure({
      ...{
        ...base,
        what: `server CPU per ${path}`,
        unit: 'us',
        runs: herald.map((run) => run.cpuMicrosPerOperation),
      },
      reference: { what, runs: express.map((run) => run.cpuMicrosPerOperation) },
    }),
    createDelayFigure({ ...base, runs: herald.map((run) => run.loopDelayP99Ms) }, `during ${path}`),
  ];
}

function buildTicketFigure(rows: number, tickets: readonly Run[], tokens: readonly Run[]): Figure {
  return createFigure({
    subject: 'requests',
    parameters: { connections: connectionCount, rows, protocol: 'http/1.1' },
    ...{ what: '/v1/tickets per second', unit: '/s', runs: tickets.map((run) => run.perSecond) },
    reference: { what: '/stream/token', runs: tokens.map((run) => run.perSecond) },
    goal: { on: 'ratio', is: '>=', bound: 0.9 },
  });
}

/**
 * Measures `/stream/token` over HTTP/2 with h2load, an independent load generator. Has no reference,
 * because Express lacks HTTP/2.
 */
async function measureOverH2(
  bench: Bench,
  { name, child, accessTokens }: ServerUnderTest,
  rows: number,
): Promise<Figure[]> {
  bench.print('/stream/token over h2, by h2load');
  const requestCount = 5000;
  const path = '/stream/token';
  const headers = {
    authorization: `Bearer ${accessTokens[0]}`,
    'content-type': 'application/json',
  };
  const plan = { port: child.port, path, headers, connectionCount };
  const { runs } = await bench.runInterleaved({
    runs: async () => {
      let perSecond = 0;
      const { cpuMicrosPerOperation, loopDelayP99Ms } = await bench.measureServer(
        child,
        `${name}, ${path} over h2`,
        async () => {
          perSecond = await h2load({ ...plan, requestCount, folder: bench.createFolder() });
          return requestCount;
        },
      );
      return { perSecond, cpuMicrosPerOperation, loopDelayP99Ms };
    },
  });
  const base = {
    subject: 'requests',
    parameters: { connections: connectionCount, rows, protocol: 'h2' },
  };
  return [
    createFigure({
      ...{ ...base, what: `${path} per second over h2, by h2load`, unit: '/s' },
      runs: runs.map((run) => run.perSecond),
    }),
    createFigure({
      ...{ ...base, what: `server CPU per ${path} over h2`, unit: 'us' },
      runs: runs.map((run) => run.cpuMicrosPerOperation),
    }),
    createDelayFigure(
      { ...base, runs: runs.map((run) => run.loopDelayP99Ms) },
      `during ${path} over h2`,
    ),
  ];
}

function createLoadRun(
  { bench, load }: { bench: Bench; load: LoadGenerator },
  server: ServerUnderTest,
  seconds: number,
) {
  return async (path: Path): Promise<Run> => {
    const { name, child, accessTokens } = server;
    const isRefresh = path === '/token';
    const tokens = isRefresh ? await server.takeUnusedTokens() : [''];
    const isTicket = path === '/v1/tickets';
    const bearers = isTicket ? [server.apiKey ?? ''] : accessTokens;
    let perSecond = 0;
    const { cpuMicrosPerOperation, loopDelayP99Ms } = await bench.measureServer(
      child,
      `${name}, ${path}`,
      async () => {
        const { refusedCount, responseCount, ...result } = await load.runHttp1Load({
          ...{ port: child.port, path, seconds },
          headers: isRefresh
            ? [{}]
            : bearers.map((token) => ({ authorization: `Bearer ${token}` })),
          connections: connectionCount,
          firstBodies: isTicket
            ? accessTokens.map((_, index) => JSON.stringify({ user: `shop:${index}` }))
            : tokens.map((token) => JSON.stringify({ token })),
          nextBody: isRefresh ? 'refresh' : 'rotate',
        });
        if (refusedCount > 0)
          throw new Error(`Cannot measure ${path}: ${refusedCount} requests were refused`);
        perSecond = result.perSecond;
        return responseCount;
      },
    );
    return { perSecond, cpuMicrosPerOperation, loopDelayP99Ms };
  };
}

async function openHerald(
  bench: Bench,
  options: DatabaseServerOptions,
  rows: number,
): Promise<ServerUnderTest> {
  const settings: Settings = {
    ...createSettings(bench.createFolder(), bench.certificate),
    DB_DIALECT: 'postgres',
    DB_HOST: options.host,
    DB_PORT: String(options.port),
    DB_NAME: options.database,
    DB_USERNAME: options.username,
    DB_PASSWORD: getCurrentText(options.password),
  };
  runCommand(bench.build, ['sync'], settings);
  // Without a schema check, because the measured build created the schema.
  const db = await PostgresDatabase.open(options);
  const members = await insertMembers(db, { memberCount: rows, passwordHash: 'none' });
  await db.close();
  const keyArguments = ['--name', 'bench', '--scope', 'tickets', '--user-prefix', 'shop:'];
  const [apiKey = ''] =
    runCommand(bench.build, ['key', 'create', ...keyArguments], settings).match(/hk_[\w-]+/) ?? [];
  const child = await bench.use(startHerald(bench.build, settings));
  let usedCount = 0;
  return {
    name: 'Herald',
    child,
    apiKey,
    accessTokens: members.map(({ accessToken }) => accessToken),
    async takeUnusedTokens() {
      usedCount += tokensPerRun;
      return members
        .slice(usedCount - tokensPerRun, usedCount)
        .map(({ refreshToken }) => refreshToken);
    },
  };
}

async function openExpressExample(
  bench: Bench,
  databaseUrl: string,
  rows: number,
): Promise<ServerUnderTest> {
  const env = { ...bench.certificate, DATABASE_URL: databaseUrl, ROWS: String(rows) };
  const child = await bench.use(
    startPeer('express-example.mjs', { ...env, NODE_ENV: 'production' }),
  );
  const requester = new H1Requester(child.port);
  const request = {
    method: 'POST',
    path: '/login',
    headers: { 'content-type': 'application/json' },
  };
  const body = Buffer.from(JSON.stringify({ username: 'member-1', password }));
  const { text } = await requester.send(request, body);
  const { accessToken } = JSON.parse(text) as { accessToken: string };
  let usedCount = 0;
  return {
    name: 'Express example',
    child,
    accessTokens: [accessToken],
    async takeUnusedTokens() {
      usedCount += tokensPerRun;
      // In the example's table, the token of row n is the SHA-256 hash of n in decimal digits.
      return Array.from({ length: tokensPerRun }, (_, index) => String(usedCount - index));
    },
  };
}
