import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { json } from '../../../src/http/reply.js';
import { route, streamRoute } from '../../../src/http/router.js';
import { ask } from '../clients/ask.js';
import { EventCollector } from '../clients/event-collector.js';
import { protocols } from '../clients/exchange.js';
import { H2Client } from '../clients/h2-client.js';
import { startHttp } from '../servers/http-server.js';
import { tempFolder, waitForExit } from '../servers/process.js';
import { failOnViolations, startOpenApiCheck } from './observer.js';

const noStore = { 'cache-control': 'no-store' };
const undocumentedMember = /GET \/health\/live: status 200: .*member "more"/;

/** Starts a server that answers a documented route with a member too many. */
async function startWrong(t: TestContext) {
  const { port } = await startHttp(t, [
    route('GET', '/health/live', () => json(200, { status: 'ok', more: 1 }, noStore)),
    streamRoute('/stream/live', () => ({
      status: 200,
      headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-store' },
      open: () => {},
    })),
    route('POST', '/events', async (exchange) => {
      for await (const _ of exchange.lines({ bytesMax: 1e6, lineBytesMax: 1e6, deadlineMs: 6e4 }));
      return json(201, { published: 1, lastId: 'e-1' });
    }),
  ]);
  return { port, url: `https://127.0.0.1:${port}` };
}

for (const protocol of protocols) {
  test(`a response over ${protocol} that does not match the document is reported once`, async (t) => {
    const { port } = await startWrong(t);
    const stopCheck = startOpenApiCheck(port);
    t.after(stopCheck);

    assert.equal((await ask(protocol, port, 'GET', '/health/live')).status, 200);

    assert.throws(failOnViolations, undocumentedMember);
    failOnViolations();
  });

  test(`the body of a request over ${protocol} is checked as it was sent`, async (t) => {
    const { port } = await startWrong(t);
    const stopCheck = startOpenApiCheck(port);
    t.after(stopCheck);
    const headers = { 'content-type': 'application/x-ndjson' };
    const body = Readable.from(['{"to":"all","da', 'ta":1,"wrong":1}\n']);

    assert.equal((await ask(protocol, port, 'POST', '/events', { headers, body })).status, 201);

    assert.throws(failOnViolations, /POST \/events: request: .*member "wrong"/);
  });
}

test('the head of an endless response is checked when the head arrives', async (t) => {
  const { port, url } = await startWrong(t);
  const stopCheck = startOpenApiCheck(port);
  t.after(stopCheck);
  const client = await H2Client.connect(url);
  t.after(() => client.destroy());

  const { status } = await client.send('GET', '/stream/live');

  assert.equal(status, 200);
  assert.throws(
    failOnViolations,
    /GET \/stream\/live: status 200: header x-accel-buffering is missing/,
  );
});

test('responses are not checked before a check of the port starts, or after it stops', async (t) => {
  const { port } = await startWrong(t);

  await ask('h2', port, 'GET', '/health/live');
  const stopCheck = startOpenApiCheck(port);
  stopCheck();
  await ask('http/1.1', port, 'GET', '/health/live');

  failOnViolations();
});

test("Herald's own events are checked, and events of publishers are not", () => {
  const collector = new EventCollector();

  collector.feed(Buffer.from('event: job.done\ndata: {"job":7}\n\n'));
  failOnViolations();
  collector.feed(Buffer.from('event: stream.close\ndata: {"code":"bored"}\n\n'));

  assert.throws(failOnViolations, /event stream\.close: \/code must be equal/);
});

test('a violation fails the test that caused it, even if the test ignores the response', async (t) => {
  const file = join(tempFolder(t), 'wrong.test.mts');
  const text = `
    import { test } from 'node:test';
    import { ask } from '${import.meta.resolve('../clients/ask.ts')}';
    import { startHttp } from '${import.meta.resolve('../servers/http-server.ts')}';
    import { json } from '${import.meta.resolve('../../../src/http/reply.ts')}';
    import { route } from '${import.meta.resolve('../../../src/http/router.ts')}';
    import { startOpenApiCheck } from '${import.meta.resolve('./observer.ts')}';
    for (const more of [{}, { more: 1 }, {}]) {
      test('with ' + JSON.stringify(more), async (t) => {
        const live = () => json(200, { status: 'ok', ...more }, { 'cache-control': 'no-store' });
        const { port } = await startHttp(t, [route('GET', '/health/live', live)]);
        const stopCheck = startOpenApiCheck(port);
        t.after(stopCheck);
        t.after(() => console.log('closed'));
        await ask('h2', port, 'GET', '/health/live');
      });
    }`;
  writeFileSync(file, text);
  const { NODE_TEST_CONTEXT: _, ...env } = process.env; // Otherwise the child would report to this run.
  const args = ['--import', import.meta.resolve('tsx'), '--test-reporter=tap', file];
  const child = spawn(process.execPath, args, { env });
  child.stdin.end();
  const { code, out } = await waitForExit(child);

  assert.equal(code, 1);
  assert.match(out, undocumentedMember);
  const results = [...out.matchAll(/^(not ok|ok) \d - (.*)$/gm)].map(([, result]) => result);
  assert.deepEqual(results, ['ok', 'not ok', 'ok'], out);
  assert.equal(out.match(/^closed$/gm)?.length, 3, out);
});
