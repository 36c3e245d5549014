import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { defaultHttpLimits } from '../src/http/limits/limits.js';
import { json } from '../src/http/reply.js';
import { route } from '../src/http/router.js';
import { HttpServer } from '../src/http/server.js';
import { Repeats } from '../src/logging/warning-aggregator.js';
import { H2Client } from './support/clients/h2-client.js';
import { recordedLog } from './support/recording/record.js';
import { authority, ca } from './support/servers/seed.js';

// [what is sent, what the handler reads]
const bodies = [
  ['nothing', undefined, null],
  ['JSON', '{"scope":"all"}', { scope: 'all' }],
] as const;

for (const [what, body, expected] of bodies) {
  test(`a handler that reads the body late reads ${what} all the same`, async (t) => {
    let goOn = () => {};
    const waiting = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const server = await HttpServer.listen({
      key: authority.privateKey,
      cert: authority.certificate,
      host: '127.0.0.1',
      port: 0,
      routes: [
        route('POST', '/late', async (exchange) => {
          await waiting;
          return json(200, { read: (await exchange.body()) ?? null });
        }),
        route('POST', '/go-on', async () => {
          await turn(); // All that came before on this connection has been dealt with.
          goOn();
          return json(200, {});
        }),
      ],
      log: recordedLog,
      repeats: new Repeats({ log: recordedLog, clock: Date.now }),
      challenge: 'Bearer realm="test"',
      corsOrigins: [],
      isStrict: true,
      trustProxyHops: 0,
      limits: defaultHttpLimits,
    });
    const client = await H2Client.connect(`https://127.0.0.1:${server.port}`, { ca });
    t.after(async () => {
      client.destroy();
      await server.close(1000);
    });
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };

    const late = client.ask('POST', '/late', { headers, ...(body && { body }) });
    await client.ask('POST', '/go-on');

    const answer = await late;
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.body, { read: expected });
  });
}
