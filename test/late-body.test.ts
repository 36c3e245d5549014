import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { json } from '../src/http/reply.js';
import { route } from '../src/http/router.js';
import { H2Client } from './support/clients/h2-client.js';
import { startHttp } from './support/servers/http-server.js';

// [case, body sent, value read]
const bodies = [
  ['an empty body', '', null],
  ['a JSON body', '{"scope":"all"}', { scope: 'all' }],
] as const;

for (const [what, body, expected] of bodies) {
  test(`a handler can read ${what} that arrived while it waited`, async (t) => {
    let resume = () => {};
    const waiting = new Promise<void>((resolve) => {
      resume = resolve;
    });
    const { port } = await startHttp(t, [
      route('POST', '/late', async (exchange) => {
        await waiting;
        return json(200, { read: (await exchange.body()) ?? null });
      }),
      route('POST', '/go-on', async () => {
        await nextTurn(); // Everything sent earlier on this connection has been processed.
        resume();
        return json(200, {});
      }),
    ]);
    const client = await H2Client.connect(`https://127.0.0.1:${port}`);
    t.after(() => client.destroy());
    const headers = body === '' ? {} : { 'content-type': 'application/json' };

    const answering = client.ask('POST', '/late', { headers, body });
    await client.ask('POST', '/go-on');

    const answer = await answering;
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.body, { read: expected });
  });
}
