import { json } from './reply.js';
import { type Route, route } from './router.js';

/** Returns whether a component is healthy. A check that throws or takes over a second has failed. */
export type Check = () => boolean | Promise<boolean>;

const deadlineMs = 1000;

/**
 * Returns the health routes. `GET /health/live`: 200 while the process runs. `GET /health/ready`: 200
 * when every check passes, otherwise 503; the body has the state of each check by name.
 */
export function healthRoutes(checks: Readonly<Record<string, Check>>): Route[] {
  return [
    route('GET', '/health/live', () => json(200, { status: 'ok' }, noStore)),
    route('GET', '/health/ready', async () => {
      const names = Object.keys(checks);
      const results = await Promise.all(Object.values(checks).map(passes));
      const states = names.map((name, index) => [name, results[index] ? 'ok' : 'failing']);
      const isReady = results.every(Boolean);
      const body = { status: isReady ? 'ok' : 'unavailable', checks: Object.fromEntries(states) };
      const headers = isReady ? noStore : { ...noStore, 'retry-after': '1' };
      return json(isReady ? 200 : 503, body, headers);
    }),
  ];
}

const noStore = { 'cache-control': 'no-store' };

async function passes(check: Check): Promise<boolean> {
  let deadline: NodeJS.Timeout | undefined;
  const timedOut = new Promise<boolean>((resolve) => {
    // Deferred by a turn, because after a pause of this process a result may have arrived unread.
    deadline = setTimeout(() => setImmediate(resolve, false), deadlineMs);
  });
  try {
    return await Promise.race([check(), timedOut]);
  } catch {
    return false; // The checked component logs the cause.
  } finally {
    clearTimeout(deadline);
  }
}
