import { Failure } from '../errors.js';
import { json } from './reply.js';
import { type Route, route } from './router.js';

/** Whether a component is healthy, or why it is degraded, which does not make the process unready. */
export type CheckResult = boolean | { readonly degraded: string };

/**
 * Returns the state of a component. A check that throws or takes over a second has failed; the reason is
 * that of the `Failure` that it throws, or `timeout`.
 */
export type Check = () => CheckResult | Promise<CheckResult>;

interface CheckState {
  readonly state: 'ok' | 'degraded' | 'failing';
  readonly reason?: string | undefined;
}

const deadlineMs = 1000;

/**
 * Returns the health routes. `GET /health/live`: 200 while the process runs. `GET /health/ready`: 200
 * when no check fails, otherwise 503; the body has the state of each check by name, and the reasons of
 * those that are not ok.
 */
export function healthRoutes(checks: Readonly<Record<string, Check>>): Route[] {
  return [
    route('GET', '/health/live', () => json(200, { status: 'ok' }, noStore)),
    route('GET', '/health/ready', async () => {
      const names = Object.keys(checks);
      const results = await Promise.all(Object.values(checks).map(run));
      const collect = (member: keyof CheckState) =>
        Object.fromEntries(names.map((name, index) => [name, results[index]?.[member]]));
      const reasons = results.some(({ reason }) => reason !== undefined)
        ? { reasons: collect('reason') }
        : {};
      const isReady = results.every(({ state }) => state !== 'failing');
      const status = isReady ? 'ok' : 'unavailable';
      const headers = isReady ? noStore : { ...noStore, 'retry-after': '1' };
      return json(isReady ? 200 : 503, { status, checks: collect('state'), ...reasons }, headers);
    }),
  ];
}

const noStore = { 'cache-control': 'no-store' };

async function run(check: Check): Promise<CheckState> {
  let deadline: NodeJS.Timeout | undefined;
  const timedOut = new Promise<CheckState>((resolve) => {
    // Deferred by a turn, because after a pause of this process a result may have arrived unread.
    const state = { state: 'failing', reason: 'timeout' } as const;
    deadline = setTimeout(() => setImmediate(resolve, state), deadlineMs);
  });
  try {
    return await Promise.race([Promise.resolve(check()).then(toState), timedOut]);
  } catch (error) {
    // The checked component logs the cause.
    return { state: 'failing', reason: error instanceof Failure ? error.reason : undefined };
  } finally {
    clearTimeout(deadline);
  }
}

function toState(result: CheckResult): CheckState {
  if (typeof result === 'boolean') return { state: result ? 'ok' : 'failing' };
  return { state: 'degraded', reason: result.degraded };
}
