import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import argon2 from 'argon2';
import { LoadGenerator } from '../load/load-generator.js';
import type { LoopPlan } from '../load/requests.js';
import type { Child } from '../process/child.js';
import { createSettings, type Member, prepareDatabase, startHerald } from '../process/herald.js';
import { startReference } from '../process/reference.js';
import type { VerificationRate } from '../references/argon2.js';
import { createDelayFigure, createFigure, type Figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';

export const password = 'correct horse battery';

const require = createRequire(import.meta.url);

export const subject: Subject = {
  name: 'logins',
  about: 'logins per second with every core busy, against argon2 alone',
  seconds: 60,
  profile: { operation: 'login', flameGraphRun: 'Herald' },

  async run(bench: Bench): Promise<Figure[]> {
    const seconds = bench.size({ smoke: 1, full: 6, compared: 2 });
    const hash = await hashPassword();
    const threads = availableParallelism();
    const settings = {
      ...createSettings(bench.createFolder(), bench.certificate),
      AUTH_QUEUE_TIMEOUT: '60000', // So that no login is refused if the machine stalls for a moment.
    };
    const { members } = await prepareDatabase(bench.build, settings, {
      memberCount: 200,
      passwordHash: hash,
    });
    const load = await bench.use(LoadGenerator.start('all'));
    const herald = await bench.use(startHerald(bench.build, settings, { core: 'all' }));
    const env = { HASH: hash, THREADS: String(threads), ARGON2: require.resolve('argon2') };
    const getArgon2Process = bench.lazy(() =>
      bench.use(startReference('argon2.ts', { folder: bench.createFolder(), env })),
    );
    const plan = createLoginPlan(herald.port, members, {
      connectionCount: 8,
      durationMs: seconds * 1000,
    });
    await load.runLoop({ ...plan, durationMsMax: 1000 }); // Warm-up.
    const { logins, verifications } = await bench.runInterleaved(
      { logins: () => measureLogins({ bench, load, herald }, plan) },
      {
        verifications: async () => measureVerifications(bench, await getArgon2Process(), seconds),
      },
    );
    const parameters = { threads, connections: 8, 'argon2 KiB': 19_456 };
    return [
      createFigure({
        ...{ subject: 'logins', what: 'logins per second', parameters, unit: '/s' },
        runs: logins.map(({ perSecond }) => perSecond),
        reference: { what: 'argon2 alone', runs: verifications.map(({ perSecond }) => perSecond) },
        goal: { on: 'ratio', is: '>=', bound: 0.95 },
        note: 'the load generator uses the same cores as the server, which lowers the measured rate; argon2 alone has no load generator',
      }),
      createFigure({
        ...{ subject: 'logins', what: 'server CPU per login', parameters, unit: 'ms' },
        runs: logins.map(({ cpuMicrosPerOperation }) => cpuMicrosPerOperation / 1000),
        reference: {
          what: 'argon2 alone',
          runs: verifications.map(({ cpuMicrosPerOperation }) => cpuMicrosPerOperation / 1000),
        },
        isStableUnderLoad: true,
      }),
      createDelayFigure(
        { subject: 'logins', parameters, runs: logins.map(({ loopDelayP99Ms }) => loopDelayP99Ms) },
        'with every core busy',
      ),
    ];
  },
};

interface Run {
  readonly perSecond: number;
  readonly cpuMicrosPerOperation: number;
  readonly loopDelayP99Ms: number;
}

async function measureLogins(
  { bench, load, herald }: { bench: Bench; load: LoadGenerator; herald: Child },
  plan: LoopPlan,
): Promise<Run> {
  let perSecond = 0;
  const { cpuMicrosPerOperation, loopDelayP99Ms } = await bench.measureServer(
    herald,
    'Herald',
    async () => {
      const { responseCount, refusedCount, seconds, errorExample } = await load.runLoop(plan);
      if (refusedCount > 0) throw new Error(`Cannot log in: ${errorExample}`);
      perSecond = responseCount / seconds;
      return responseCount;
    },
  );
  return { perSecond, cpuMicrosPerOperation, loopDelayP99Ms };
}

async function measureVerifications(
  bench: Bench,
  argon2Process: Child,
  seconds: number,
): Promise<Run> {
  let perSecond = 0;
  const { cpuMicrosPerOperation, loopDelayP99Ms } = await bench.measureServer(
    argon2Process,
    'argon2 alone',
    async () => {
      const result = (await argon2Process.ask('verify', seconds * 1000)) as VerificationRate;
      perSecond = result.perSecond;
      return result.count;
    },
  );
  return { perSecond, cpuMicrosPerOperation, loopDelayP99Ms };
}

/**
 * Returns a plan in which the members take turns to log in, so that no member gets unusually many
 * sessions.
 */
export function createLoginPlan(
  port: number,
  members: readonly Member[],
  { connectionCount, durationMs }: { connectionCount: number; durationMs: number },
): LoopPlan {
  const clients = members.map(({ username }) => ({
    headers: {},
    body: JSON.stringify({ username, password }),
  }));
  return {
    port,
    path: '/login',
    clients,
    connectionCount,
    responseCountMax: 1e9,
    nextBody: 'same',
    durationMsMax: durationMs,
  };
}

/** Hashes the password with Herald's default parameters. */
export function hashPassword(): Promise<string> {
  return argon2.hash(password, {
    type: argon2.argon2id,
    ...{ memoryCost: 19_456, timeCost: 2, parallelism: 1 },
  });
}
