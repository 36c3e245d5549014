import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { H2Client } from '../../test/support/clients/h2-client.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { scheme } from '../../test/support/servers/scheme.js';
import { Failure, type FailureName } from '../errors.js';
import type { Sink } from '../http/reply.js';
import { streamRoute } from '../http/router.js';
import { silentLogger } from '../logging/logger.js';
import { WarningAggregator } from '../logging/warning-aggregator.js';
import { rejectInStream } from './opening.js';

const retryMs = 12_000;
const retryAfterMs = 60_000;

/** Starts a server whose stream fails to open, and requests it. Returns the outcome. */
async function openFailing(t: TestContext, name: FailureName, accept: string | undefined) {
  const refusals: string[] = [];
  const keptAlive: unknown[] = [];
  const streams = {
    pickRefusalRetryMs: () => retryMs,
    refuse(sink: Sink, reason: string) {
      refusals.push(reason);
      sink.end();
    },
  };
  const tokens = { keepAlive: (...kept: unknown[]) => keptAlive.push(kept) };
  const warnings = new WarningAggregator({ log: silentLogger, monotonicClock: Date.now });
  const open = () => Promise.reject(new Failure(name, 'on purpose', { retryAfterMs }));
  const { port } = await startHttp(t, [
    streamRoute('/stream', (exchange) =>
      rejectInStream({ streams, tokens, log: silentLogger, warnings }, exchange, open, 'hash'),
    ),
  ]);
  const client = await H2Client.connect(`${scheme}://127.0.0.1:${port}`);
  t.after(() => client.destroy());
  const headers = accept === undefined ? {} : { accept };
  const { status } = await client.ask('GET', '/stream', { headers });
  return { status, refusals, keptAlive };
}

for (const name of ['too_many_streams', 'too_many_requests', 'service_unavailable'] as const) {
  test(`after ${name}, an EventSource is refused in the stream, and its token is kept alive for its retry`, async (t) => {
    assert.deepEqual(await openFailing(t, name, 'text/event-stream'), {
      status: 200,
      refusals: [name],
      keptAlive: [['hash', retryMs]],
    });
  });

  test(`after ${name}, a client that is not an EventSource gets the status, and its token is kept alive for its Retry-After`, async (t) => {
    const status = name === 'service_unavailable' ? 503 : 429;
    for (const accept of [undefined, '*/*', 'text/event-stream, */*', 'text/event-stream;q=0.9']) {
      assert.deepEqual(await openFailing(t, name, accept), {
        status,
        refusals: [],
        keptAlive: [['hash', retryAfterMs]],
      });
    }
  });
}

test('after a permanent failure, the client gets the status, and its token is not kept alive', async (t) => {
  const outcome = await openFailing(t, 'invalid_token', 'text/event-stream');

  assert.deepEqual(outcome, { status: 401, refusals: [], keptAlive: [] });
});
