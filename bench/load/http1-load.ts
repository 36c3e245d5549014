import autocannon from 'autocannon';
import { nextClientAddress } from './requests.js';

/** JSON requests over HTTP/1.1 by autocannon, which speaks nothing else. */
export interface Http1LoadPlan {
  readonly port: number;
  readonly path: string;
  /** Of the requests in turn, from the first again after the last. */
  readonly headers: readonly Readonly<Record<string, string>>[];
  readonly seconds: number;
  readonly connections: number;
  /**
   * Where they begin. `refresh`: each body carries a token out of an answer; autocannon prepares
   * requests that it does not send, so there have to be some more than connections.
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
        // Called after the answer before was taken: there is always a body for it.
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
