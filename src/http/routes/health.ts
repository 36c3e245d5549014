import { setImmediate as nextTurn, setTimeout as wait } from 'node:timers/promises';
import type { Clock } from '../../clock.js';
import { Failure } from '../../errors.js';
import { RecentCall } from '../../util/recent-call.js';
import { json } from '../reply.js';
import { type Route, route } from '../router.js';

/** Whether a component is healthy, or the reason why it is degraded. A degraded component does not affect readiness. */
export type CheckResult = boolean | { readonly degraded: string };

export interface HealthOptions {
  /** Checks by name. Each returns whether a component is healthy, and runs for each request. */
  readonly checks: Readonly<Record<string, () => boolean>>;
  /**
   * Asynchronous checks by name. Requests within one second share the outcome of a check. A check fails if it
   * rejects, with the reason of its `Failure`, or if it takes over a second, with the reason `timeout`.
   */
  readonly sharedChecks?: Readonly<Record<string, () => Promise<CheckResult>>>;
  /** Returns milliseconds, of which only differences matter. Default: `performance.now`. */
  readonly monotonicClock?: Clock;
}

interface CheckState {
  readonly state: 'ok' | 'degraded' | 'failing';
  readonly reason?: string | undefined;
}

const sharedMs = 1000;
const deadlineMs = 1000;
const deadlineSteps = 10;

/**
 * Returns the health routes. `GET /health/live`: 200 while the process runs. `GET /health/ready`: 200
 * when no check fails, otherwise 503; the body has the state of each check by name, and the reasons of the
 * states that are not `ok`.
 */
export function healthRoutes(options: HealthOptions): Route[] {
  const { checks, sharedChecks = {}, monotonicClock = () => performance.now() } = options;
  const states: [string, () => CheckState | Promise<CheckState>][] = [];
  for (const [name, check] of Object.entries(checks)) states.push([name, () => toState(check())]);
  for (const [name, check] of Object.entries(sharedChecks)) {
    const recent = new RecentCall(() => runCheck(check), { maxAgeMs: sharedMs, monotonicClock });
    states.push([name, () => recent.run()]);
  }
  return [
    route('GET', '/health/live', () => json(200, { status: 'ok' }, noStore)),
    route('GET', '/health/ready', async () => {
      const results = await Promise.all(states.map(([, getState]) => getState()));
      const collect = (member: keyof CheckState) =>
        Object.fromEntries(states.map(([name], index) => [name, results[index]?.[member]]));
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

/** Runs a check and returns its state: `failing` if the check rejects or exceeds its deadline. Never rejects. */
async function runCheck(check: () => Promise<CheckResult>): Promise<CheckState> {
  const settled = new AbortController();
  try {
    return await Promise.race([check().then(toState), waitForDeadline(settled.signal)]);
  } catch (error) {
    // The checked component logs the cause.
    return { state: 'failing', reason: error instanceof Failure ? error.reason : undefined };
  } finally {
    settled.abort();
  }
}

/**
 * Resolves with the failed state after a second, or later while requests keep the event loop busy. It waits in
 * ten steps of at least one event-loop turn each, so that a result that arrives within a few slow turns counts.
 */
async function waitForDeadline(signal: AbortSignal): Promise<CheckState> {
  for (let step = 0; step < deadlineSteps; step += 1) {
    await wait(deadlineMs / deadlineSteps, undefined, { signal });
    await nextTurn(undefined, { signal }); // Lets Node read the data that arrived during a pause of the process.
  }
  return { state: 'failing', reason: 'timeout' };
}

function toState(result: CheckResult): CheckState {
  if (typeof result === 'boolean') return { state: result ? 'ok' : 'failing' };
  return { state: 'degraded', reason: result.degraded };
}
