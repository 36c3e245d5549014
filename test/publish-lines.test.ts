import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { describe, test } from 'node:test';
import { ask } from './support/clients/ask.js';
import type { H2Client } from './support/clients/h2-client.js';
import { waitForExit } from './support/servers/process.js';
import { type System, startSystem } from './support/servers/system.js';
import { withDeadline } from './support/with-deadline.js';

const noCurl =
  spawnSync('curl', ['--version']).error === undefined ? false : 'curl is not installed';

/** Publishes lines over the connection of `client`, which a test may cut. */
function postLines(
  system: System,
  client: H2Client,
  body: string | Readable,
  extraHeaders: Readonly<Record<string, string>> = {},
) {
  const headers = { 'content-type': 'application/x-ndjson', ...extraHeaders };
  return client.ask('POST', '/events', { bearer: system.apiKey, headers, body });
}

const toLine = (data: unknown) => `${JSON.stringify({ to: 'all', data })}\n`;

function* generateLines(count: number): Generator<string> {
  for (let index = 0; index < count; index += 1) yield toLine(String(index));
}

test('20,000 lines, far more than fit in a batch, are published in order', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const stream = await client.listen('ada');

  const { status, body } = await postLines(system, client, Readable.from(generateLines(20_000)));
  await stream.until(() => stream.ids.at(-1) === body['lastId'] || undefined);

  assert.equal(status, 201);
  assert.equal(body['published'], 20_000);
  assert.deepEqual(
    stream.dataByType('message'),
    Array.from({ length: 20_000 }, (_, index) => String(index)),
  );
});

test('with an Idempotency-Key, full batches are delivered before the last line is received', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const stream = await client.listen('ada');
  const body = new PassThrough();

  const answer = postLines(system, client, body, { 'idempotency-key': 'full batches only' });
  for (const line of generateLines(600)) body.write(line);
  await stream.until(() => stream.dataByType('message')[499]);
  const earlyCount = stream.dataByType('message').length;
  body.end('{"to": "all", "data": "last", "volatile": true}');
  const { body: published } = await answer;
  await stream.until(() => stream.dataByType('message').at(-1) === 'last' || undefined);

  assert.equal(earlyCount, 500);
  assert.equal(published['published'], 601);
  assert.equal(published['lastId'], stream.ids.at(-1));
});

describe('a body that pauses', { concurrency: true }, () => {
  for (const protocol of ['h2', 'http/1.1'] as const) {
    test(`over ${protocol}, a line is delivered during a pause, which ends neither the body nor the connection`, async (t) => {
      const env = { BODY_TIMEOUT: '100', IDLE_TIMEOUT: '2000', STREAM_HEARTBEAT: '1000' };
      const system = await startSystem(t, { env });
      const client = await system.connect();
      const stream = await client.listen('ada');
      const publisher = await system.connect();
      const body = new PassThrough();
      const headers = { 'content-type': 'application/x-ndjson' };
      const parts = { bearer: system.apiKey, headers, body };

      const answer =
        protocol === 'h2'
          ? publisher.ask('POST', '/events', parts)
          : ask('http/1.1', Number(new URL(system.url).port), 'POST', '/events', parts);
      body.write(toLine('first'));
      await stream.until(() => stream.dataByType('message').includes('first') || undefined);
      await publisher.ask('GET', '/health/live'); // Over HTTP/2, this ends an exchange on the same connection.
      for (let count = 0; count < 2; count += 1) {
        const idle = await system.connect();
        // Idle connections are closed meanwhile, one after the other.
        await withDeadline(once(idle.session, 'close'), 'the end of an idle connection');
      }
      body.write(toLine('second'));
      await stream.until(() => stream.dataByType('message').includes('second') || undefined);
      body.end(toLine('third'));

      const { status, body: published } = await answer;
      assert.deepEqual([status, published['published']], [201, 3]);
    });
  }
});

test('a pause longer than PUBLISH_IDLE_TIMEOUT gets 408 with the number of published events', async (t) => {
  const system = await startSystem(t, { env: { PUBLISH_IDLE_TIMEOUT: '1000' } });
  const client = await system.connect();
  const body = new PassThrough();

  const answer = postLines(system, client, body);
  body.write(toLine('first'));
  const { status, body: problem } = await answer;

  assert.deepEqual([status, problem['name']], [408, 'request_timeout']);
  assert.deepEqual(problem['info'], { published: 1 });
});

test('only the unwritten lines of open bodies count towards PUBLISH_BODIES_LIMIT, and a failed body frees its share', async (t) => {
  const system = await startSystem(t, { env: { PUBLISH_BODIES_LIMIT: '8388608' } });
  const client = await system.connect();
  const stream = await client.listen('ada');
  const bodies = Array.from({ length: 60 }, () => new PassThrough());

  const answers = bodies.map((body) => postLines(system, client, body));
  for (const [index, body] of bodies.entries()) body.write(toLine(`line ${index}`));
  await stream.until(() => stream.dataByType('message').length === 60 || undefined);
  for (const [index, body] of bodies.entries()) body.end(index % 2 === 0 ? '{' : undefined);
  const statuses = (await Promise.all(answers)).map(({ status }) => status);
  const large = toLine('x'.repeat(60_000)).repeat(17); // More than 1 MB.
  const failures: number[] = [];
  for (let count = 0; count < 10; count += 1)
    failures.push((await postLines(system, client, `${large}{`)).status);

  assert.deepEqual(
    statuses,
    bodies.map((_, index) => (index % 2 === 0 ? 400 : 201)),
  );
  assert.deepEqual(failures, Array(10).fill(400));
  assert.equal((await postLines(system, client, large)).status, 201);
});

test('the response to an invalid line has its index and the number of published events', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const stream = await client.listen('ada');
  const validLines = [...generateLines(700)].join('');

  const withKey = { 'idempotency-key': 'full batches only' };
  const invalid = `${validLines}{"to"\n${toLine('never')}`;
  const noJson = await postLines(system, client, invalid, withKey);
  const noData = await postLines(system, client, `${toLine(1)}{"to":"all"}\n`);
  const tooLong = await postLines(system, client, toLine('x'.repeat(65_537)));
  const noLines = await postLines(system, client, '\n\n');
  const next = await system.publish('ada', 'next');
  await stream.until(() => stream.ids.at(-1) === next || undefined);

  const reported = [noJson, noData, tooLong, noLines].map(({ status, body }) => [
    status,
    body['info'],
  ]);
  assert.deepEqual(reported, [
    [400, { index: 700, published: 500 }], // A batch is 500 events.
    [400, { body: ['data'], index: 1, published: 0 }],
    [413, { field: 'data', index: 0, published: 0 }],
    [400, { published: 0 }],
  ]);
  assert.equal(stream.dataByType('message').length, 501); // The batch, and `next`.
});

test('a retry with the same idempotency key completes an interrupted body', async (t) => {
  const system = await startSystem(t);
  const first = await system.connect();
  const second = await system.connect();
  const stream = await second.listen('ada');
  const all = [...generateLines(1800)];
  const key = { 'idempotency-key': 'import 7' };
  const body = new PassThrough();

  const interrupted = postLines(system, first, body, key);
  body.write(all.slice(0, 1200).join(''));
  await stream.until(() => stream.dataByType('message')[999]);
  first.destroy();
  await assert.rejects(interrupted);
  const { status, body: published } = await postLines(system, second, all.join(''), key);
  const repeated = await postLines(system, second, all.join(''), key);
  const otherBody = await postLines(system, second, toLine('another body'), key);
  const next = await system.publish('ada', 'next');
  await stream.until(() => stream.ids.at(-1) === next || undefined);

  assert.equal(status, 201);
  assert.equal(published['published'], 1800);
  assert.deepEqual(repeated.body, published);
  assert.equal(otherBody.status, 409);
  assert.deepEqual(
    stream.dataByType('message').slice(0, -1),
    all.map((_, index) => String(index)),
  );
});

test('lines with idempotency keys are published as they arrive, and a retry publishes only the missing ones', async (t) => {
  const system = await startSystem(t);
  const [first, second] = [await system.connect(), await system.connect()];
  const stream = await second.listen('ada');
  const keyedLine = (data: string, key: string) =>
    `${JSON.stringify({ to: 'all', data, idempotencyKey: key })}\n`;
  const lines = ['token 1', 'token 2', 'token 3'].map((data) => keyedLine(data, `job 7 ${data}`));
  const body = new PassThrough();

  const interrupted = postLines(system, first, body);
  for (const [index, line] of lines.slice(0, 2).entries()) {
    body.write(line);
    await stream.until(() => stream.dataByType('message')[index]); // Before the next line.
  }
  first.destroy();
  await assert.rejects(interrupted);
  const retry = await postLines(system, second, lines.join(''));
  const conflict = await postLines(
    system,
    second,
    toLine('new') + keyedLine('another', 'job 7 token 1'),
  );
  const withHeader = await postLines(system, second, lines.join(''), { 'idempotency-key': 'all' });
  const last = await system.publish('ada', 'last');
  await stream.until(() => stream.ids.at(-1) === last || undefined);

  assert.deepEqual([retry.status, retry.body['published']], [201, 3]);
  assert.deepEqual(
    [conflict.status, conflict.body['info']],
    [409, { field: 'idempotencyKey', index: 1, published: 0 }],
  );
  assert.deepEqual(
    [withHeader.status, withHeader.body['info']],
    [400, { field: 'idempotencyKey', index: 0, published: 0 }],
  );
  assert.deepEqual(stream.dataByType('message'), ['token 1', 'token 2', 'token 3', 'last']);
});

test('a body over the size limit of the event log is rejected', async (t) => {
  const system = await startSystem(t, {
    // After the 413 the server waits for the rest of the body as long as END_TIMEOUT, 10 s by default.
    env: { EVENT_LOG_MAX_BYTES: '65536', END_TIMEOUT: '3000' },
  });
  const client = await system.connect();

  const { status, body } = await postLines(system, client, toLine('x'.repeat(1000)).repeat(100));

  assert.equal(status, 413);
  assert.equal(body['name'], 'payload_too_large');
});

for (const protocol of ['--http2', '--http1.1']) {
  test(`curl ${protocol} publishes lines from a pipe`, { skip: noCurl }, async (t) => {
    const system = await startSystem(t);
    const child = spawn('curl', [
      ...['-s', protocol, '--cacert', join(system.folder, 'server.cert'), '-T', '-', '-X', 'POST'],
      ...['-H', `Authorization: Bearer ${system.apiKey}`],
      ...['-H', 'Content-Type: application/x-ndjson', `${system.url}/events`],
    ]);

    Readable.from(generateLines(5000)).pipe(child.stdin);
    const { out, code } = await waitForExit(child);

    assert.equal(code, 0);
    assert.equal(JSON.parse(out).published, 5000);
  });
}
