import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { HttpLimits } from '../../../src/http/limits/limits.js';
import { json, type Sink } from '../../../src/http/reply.js';
import { route } from '../../../src/http/router.js';
import { ask } from '../clients/ask.js';
import { until } from '../until.js';
import { startHttp } from './http-server.js';

/**
 * Time limits that no well-behaved client reaches, even on a machine that stalls. A test shortens only the
 * limit that it tests. That limit does not apply to the test's well-behaved clients, or is seconds long.
 */
const longLimits: Partial<HttpLimits> = {
  idleMs: 60_000,
  endMs: 60_000,
  bodyMs: 60_000,
  headersMs: 60_000,
  handshakeMs: 60_000,
};

/** Starts a server for hostile clients; collects the bodies and sinks that reach its handlers. */
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

  /**
   * Asserts that the server answers requests, that after `disconnect` it has no connections, and that it
   * has logged no warning or error.
   */
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
