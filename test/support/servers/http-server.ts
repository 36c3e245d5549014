import type { TestContext } from 'node:test';
import { defaultHttpLimits, type HttpLimits } from '../../../src/http/limits/limits.js';
import type { Route } from '../../../src/http/router.js';
import { HttpServer, type HttpServerOptions } from '../../../src/http/server.js';
import { WarningAggregator } from '../../../src/logging/warning-aggregator.js';
import { collectingLog } from '../recording/collecting-log.js';
import { testCertificate } from './certificate.js';
import { usesTls } from './scheme.js';

type Overrides = Partial<Omit<HttpServerOptions, 'limits'>> & {
  readonly limits?: Partial<HttpLimits>;
};

/** Starts a server with these routes on a free port and collects its log lines. Closed after the test. */
export async function startHttp(
  t: TestContext,
  routes: readonly Route[],
  overrides: Overrides = {},
) {
  const lines: Record<string, unknown>[] = [];
  const log = collectingLog(lines);
  const server = await HttpServer.listen({
    certificate: usesTls ? testCertificate : undefined,
    host: '127.0.0.1',
    port: 0,
    routes,
    log,
    warnings: new WarningAggregator({ log, monotonicClock: Date.now }),
    challenge: 'Bearer realm="test"',
    corsOrigins: [],
    isHstsEnabled: true,
    trustProxyHops: 0,
    ...overrides,
    limits: { ...defaultHttpLimits, ...overrides.limits },
  });
  t.after(() => server.close(0));
  return { server, port: server.port, lines };
}
