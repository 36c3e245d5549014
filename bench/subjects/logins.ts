import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import argon2 from 'argon2';
import { Load } from '../load/load.js';
import type { LoopPlan } from '../load/requests.js';
import type { Child } from '../process/child.js';
import { type Member, prepareDatabase, settingsFor, startHerald } from '../process/herald.js';
import { startScript } from '../process/scripts.js';
import type { VerificationRate } from '../references/argon2.js';
import { delayFigure, type Figure, figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';

export const password = 'correct horse battery';

const require = createRequire(import.meta.url);

export const subject: Subject = {
  name: 'logins',
  about: 'logins per second with every core busy, against argon2 alone',
  seconds: 60,
  profile: { operation: 'login', flameGraphRun: 'Herald' },

  async run(bench: Bench): Promise<Figure[]> {
    const seconds = bench.size(1, 6, 2);
    const hash = await hashPassword();
    const threads = availableParallelism();
    const settings = {
      ...settingsFor(bench.folder(), bench.certificate),
      AUTH_QUEUE_TIMEOUT: '60000', // No refusals, even if the machine stalls for a moment.
    };
    const { members } = await prepareDatabase(bench.build, settings, {
      members: 200,
      passwordHash: hash,
    });
    const load = await bench.use(Load.start('all'));
    const herald = await bench.use(startHerald(bench.build, settings, { core: 'all' }));
    const env = { HASH: hash, THREADS: String(threads), ARGON2: require.resolve('argon2') };
    const alone = bench.lazy(() =>
      bench.use(startScript('argon2.ts', { folder: bench.folder(), env })),
    );
    const plan = loginPlan(Number(herald.ready), members, { connections: 8, ms: seconds * 1000 });
    await load.runLoop({ ...plan, durationMsMax: 1000 }); // Warm-up.
    const { logins, verifies } = await bench.interleaved(
      { logins: () => logInAll({ bench, load, herald }, plan) },
      { verifies: async () => verifyAll(bench, await alone(), seconds) },
    );
    const parameters = { threads, connections: 8, 'KiB of argon2': 19_456 };
    return [
      figure({
        ...{ subject: 'logins', what: 'logins a second', parameters, unit: '/s' },
        runs: logins.map(({ rate }) => rate),
        reference: { what: 'argon2 alone', runs: verifies.map(({ rate }) => rate) },
        goal: { on: 'ratio', is: '>=', bound: 0.95 },
        note: 'the load shares the cores with the server, and both count against it',
      }),
      figure({
        ...{ subject: 'logins', what: 'server CPU a login', parameters, unit: 'ms' },
        runs: logins.map(({ cpuMicrosPerOperation }) => cpuMicrosPerOperation / 1000),
        reference: {
          what: 'argon2 alone',
          runs: verifies.map(({ cpuMicrosPerOperation }) => cpuMicrosPerOperation / 1000),
        },
        isStableUnderLoad: true,
      }),
      delayFigure(
        { subject: 'logins', parameters, runs: logins.map(({ loopDelayP99Ms }) => loopDelayP99Ms) },
        'with every core busy',
      ),
    ];
  },
};

interface Run {
  readonly rate: number;
  readonly cpuMicrosPerOperation: number;
  readonly loopDelayP99Ms: number;
}

async function logInAll(
  { bench, load, herald }: { bench: Bench; load: Load; herald: Child },
  plan: LoopPlan,
): Promise<Run> {
  let rate = 0;
  const { cpuMicrosPerOperation, loopDelayP99Ms } = await bench.measureServer(
    herald,
    'Herald',
    async () => {
      const { responseCount, refusedCount, seconds, errorExample } = await load.runLoop(plan);
      if (refusedCount > 0) throw new Error(`Cannot log in: ${errorExample}`);
      rate = responseCount / seconds;
      return responseCount;
    },
  );
  return { rate, cpuMicrosPerOperation, loopDelayP99Ms };
}

async function verifyAll(bench: Bench, alone: Child, seconds: number): Promise<Run> {
  let rate = 0;
  const { cpuMicrosPerOperation, loopDelayP99Ms } = await bench.measureServer(
    alone,
    'argon2 alone',
    async () => {
      const result = (await alone.ask('verify', seconds * 1000)) as VerificationRate;
      rate = result.rate;
      return result.count;
    },
  );
  return { rate, cpuMicrosPerOperation, loopDelayP99Ms };
}

/**
 * Returns a plan in which the members log in in turn, so that no member gets unusually many
 * sessions.
 */
export function loginPlan(
  port: number,
  members: readonly Member[],
  { connections, ms }: { connections: number; ms: number },
): LoopPlan {
  const clients = members.map(({ username }) => ({
    headers: {},
    body: JSON.stringify({ username, password }),
  }));
  return {
    port,
    path: '/login',
    clients,
    connections,
    count: 1e9,
    nextBody: 'same',
    durationMsMax: ms,
  };
}

/** Hashes the password with Herald's default parameters. */
export function hashPassword(): Promise<string> {
  return argon2.hash(password, {
    type: argon2.argon2id,
    ...{ memoryCost: 19_456, timeCost: 2, parallelism: 1 },
  });
}
