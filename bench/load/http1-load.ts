import autocannon from 'autocannon';
import { unusedAddressHeader } from './requests.js';

/** A load of JSON requests over HTTP/1.1, sent by autocannon, which cannot send HTTP/2. */
export interface Http1LoadPlan {
  readonly port: number;
  readonly path: string;
  /** Sets of headers, used in rotation: one set per request. */
  readonly headers: readonly Readonly<Record<string, string>>[];
  readonly seconds: number;
  readonly connections: number;
  /**
   * With `rotate`, the bodies are used in rotation, like the headers. With `refresh`, each body is sent once:
   * first these bodies, then bodies with the refresh tokens of the responses. `refresh` needs more bodies
   * than connections, because autocannon also prepares requests that it does not send.
   */
  readonly firstBodies: readonly string[];
  readonly nextBody: 'rotate' | 'refresh';
}

export interface Http1LoadResult {
  readonly perSecond: number;
  readonly responseCount: number;
  /** Number of responses other than 2xx, and of connection errors. */
  readonly refusedCount: number;
  readonly p99Ms: number;
}

export async function runHttp1Load(plan: Http1LoadPlan): Promise<Http1LoadResult> {
  const { port, path, seconds, nextBody, connections } = plan;
  const bodies = [...plan.firstBodies];
  let sentCount = 0;
  const result = await autocannon({
    url: `https://127.0.0.1:${port}`,
    connections,
    duration: seconds,
    requests: [
      {
        method: 'POST',
        path,
        // Each response is handled before the next request of its connection, so a body is always left.
        setupRequest(request) {
          const clientHeaders = plan.headers[sentCount % plan.headers.length];
          const headers = {
            'content-type': 'application/json',
            ...clientHeaders,
            ...unusedAddressHeader(),
          };
          const body = nextBody === 'rotate' ? bodies[sentCount % bodies.length] : bodies.shift();
          sentCount += 1;
          return { ...request, headers, body };
        },
        onResponse(status, body) {
          if (nextBody === 'rotate' || status !== 200) return;
          const token = (JSON.parse(body) as { refreshToken: string }).refreshToken;
          bodies.push(JSON.stringify({ token }));
        },
      },
    ],
  });
  const responseCount = result.requests.total;
  const refusedCount = result.non2xx + result.errors;
  return {
    perSecond: responseCount / result.duration,
    responseCount,
    refusedCount,
    p99Ms: result.latency.p99,
  };
}
