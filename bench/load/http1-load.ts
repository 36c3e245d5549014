import autocannon from 'autocannon';
import { nextClientAddress } from './requests.js';

/** A load of JSON requests over HTTP/1.1 by autocannon, which has no HTTP/2. */
export interface Http1LoadPlan {
  readonly port: number;
  readonly path: string;
  /** Headers of the requests, used in turn. */
  readonly headers: readonly Readonly<Record<string, string>>[];
  readonly seconds: number;
  readonly connections: number;
  /**
   * The first bodies. With `refresh`, each later body contains the token of a response; autocannon
   * prepares requests that it does not send, so there must be more bodies than connections.
   */
  readonly bodies: readonly string[];
  readonly next: 'same' | 'refresh';
}

export interface Http1LoadResult {
  readonly perSecond: number;
  readonly answered: number;
  readonly refused: number;
  readonly p99: number;
}

export async function runHttp1Load(plan: Http1LoadPlan): Promise<Http1LoadResult> {
  const { port, path, seconds, next, connections } = plan;
  const bodies = [...plan.bodies];
  const [first] = bodies;
  let sent = 0;
  const result = await autocannon({
    url: `https://127.0.0.1:${port}`,
    connections,
    duration: seconds,
    requests: [
      {
        method: 'POST',
        path,
        // Called after the previous response was handled, so there is always a body.
        setupRequest(request) {
          const own = plan.headers[sent % plan.headers.length];
          const headers = { 'content-type': 'application/json', ...own, ...nextClientAddress() };
          sent += 1;
          return { ...request, headers, body: next === 'same' ? first : bodies.shift() };
        },
        onResponse(status, body) {
          if (next === 'same' || status !== 200) return;
          const token = (JSON.parse(body) as { refreshToken: string }).refreshToken;
          bodies.push(JSON.stringify({ token }));
        },
      },
    ],
  });
  const answered = result.requests.total;
  const refused = result.non2xx + result.errors;
  return { perSecond: answered / result.duration, answered, refused, p99: result.latency.p99 };
}
