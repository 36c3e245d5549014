import type { Exchange } from '../exchange.js';
import { type Route, serverRoute } from '../router.js';

export interface MetricsSource {
  readonly contentType: string;
  text(): Promise<string>;
}

/** Returns the route `GET /metrics`. `authorize` rejects for clients that may not read metrics. */
export function metricsRoute(
  source: MetricsSource,
  authorize: (exchange: Exchange) => Promise<unknown>,
): Route {
  return serverRoute('GET', '/metrics', async (exchange) => {
    await authorize(exchange);
    const headers = { 'content-type': source.contentType, 'cache-control': 'no-store' };
    return { status: 200, headers, body: Buffer.from(await source.text()) };
  });
}
