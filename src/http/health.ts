import { json } from './reply.js';
import { type Route, route } from './router.js';

/** Answers, or settles, true when all is well. One that throws, or takes over a second, is not. */
export type Check = () => boolean | Promise<boolean>;

const deadlineMs = 1000;

/**
 * `GET /health/live`: the process runs. `GET /health/ready`: 200 when every check is well, else 503
 * with the names of those that are not.
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
    // A turn later: after a pause of our own the answer may be here, and only not read yet.
    deadline = setTimeout(() => setImmediate(resolve, false), deadlineMs);
  });
  try {
    return await Promise.race([check(), timedOut]);
  } catch {
    return false; // Why it failed is for the part that is checked to log.
  } finally {
    clearTimeout(deadline);
  }
}
