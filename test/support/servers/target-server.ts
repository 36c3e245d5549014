import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { HttpLimits } from '../../../src/http/limits/limits.js';
import { json, type Sink } from '../../../src/http/reply.js';
import { route } from '../../../src/http/router.js';
import { ask } from '../clients/ask.js';
import { until } from '../until.js';
import { startHttp } from './http-server.js';

/**
 * Out of reach: a machine that stands still for a moment must not make an honest client a late one.
 * A test of a limit sets that one, and who is honest there is not subject to it, or gets seconds.
 */
const longLimits: Partial<HttpLimits> = {
  idleMs: 60_000,
  endMs: 60_000,
  bodyMs: 60_000,
  headersMs: 60_000,
  handshakeMs: 60_000,
};

/** A server that is about to be treated badly, and what came through to its handlers. */
export async function startTargetServer(
  t: TestContext,
  limits: Partial<HttpLimits> = {},
  pingMs = 20_000,
) {
  const bodies: unknown[] = [];
  const sinks: Sink[] = [];
  const routes = [
    route('GET', '/hello', () => json(200, { hello: true })),
    route('GET', '/big', () => json(200, 'x'.repeat(100_000))),
    route('GET', '/never', () => new Promise(() => {})),
    route('GET', '/stream', () => ({ status: 200, headers: {}, open: (sink) => sinks.push(sink) })),
    route('POST', '/echo', async (exchange) => {
      bodies.push(await exchange.body());
      return json(200, { body: bodies.at(-1) });
    }),
  ];
  const started = await startHttp(t, routes, { limits: { ...longLimits, ...limits }, pingMs });
  const { server, port, lines } = started;

  /** Others are served, and after `leave` nothing is left: no connection, no complaint. */
  async function assertHealthy(disconnect: () => void): Promise<void> {
    for (const protocol of ['h2', 'http/1.1'] as const) {
      assert.equal((await ask(protocol, port, 'GET', '/hello')).status, 200);
    }
    disconnect();
    await until(() => server.connections === 0);
    assert.deepEqual(
      lines.filter(({ level }) => level === 'error' || level === 'warn'),
      [],
    );
  }
  return { server, port, lines, bodies, sinks, assertHealthy };
}
