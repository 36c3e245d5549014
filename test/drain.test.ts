import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { withAccounts } from '../src/commands/accounts.js';
import { loadConfig } from '../src/config/config.js';
import { EventSourceClient } from './support/clients/event-source.js';
import type { H2Client } from './support/clients/h2-client.js';
import { recordSecret } from './support/recording/record.js';
import { ServerProcess } from './support/servers/server-process.js';
import { until } from './support/until.js';

/** Publishes one event after another and retries each until it is accepted. */
class Backend {
  readonly published: string[] = [];
  retries = 0;
  readonly #server: ServerProcess;
  readonly #name: string;
  #client: H2Client | undefined;
  #isStopping = false;
  #isAborted = false;
  readonly #running: Promise<void>;

  constructor(server: ServerProcess, name: string) {
    this.#server = server;
    this.#name = name;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#running;
    this.#client?.destroy();
  }

  /** Stops at once, even during a publish. */
  abort(): void {
    this.#isStopping = true;
    this.#isAborted = true;
    this.#client?.destroy();
  }

  async #run(): Promise<void> {
    for (let count = 0; !this.#isStopping; count += 1) {
      const data = `${this.#name} ${count}`;
      while (!(await this.#tryPublish(data))) {
        if (this.#isAborted) return;
        this.retries += 1;
      }
      this.published.push(data);
    }
  }

  /**
   * Publishes with an idempotency key, so that a retry after a lost reply does not publish twice. Returns whether
   * the event was acknowledged.
   */
  async #tryPublish(data: string): Promise<boolean> {
    try {
      this.#client ??= await this.#server.connect();
      const { status } = await this.#client.ask('POST', '/events', {
        bearer: this.#server.prepared.apiKey,
        headers: { 'idempotency-key': data },
        json: { to: 'all', data },
      });
      return status === 201;
    } catch {
      this.#client?.destroy();
      this.#client = undefined;
      // Without a pause, retries while the server is unavailable would starve everything else.
      await new Promise((resolve) => setTimeout(resolve, 20));
      return false;
    }
  }
}

async function openPages(server: ServerProcess, count: number): Promise<EventSourceClient[]> {
  const client = await server.connect();
  const paths = await Promise.all(Array.from({ length: count }, () => client.streamPath('ada')));
  client.destroy();
  const pages = paths.map((path, index) => {
    const protocol = index % 2 === 0 ? 'h2' : 'http/1.1';
    return new EventSourceClient(server.url + path, { protocol });
  });
  await Promise.all(pages.map((page) => page.waitForOpenings(1)));
  return pages;
}

/** Resolves when the page has received `count` further events. */
async function waitForEvents(page: EventSourceClient, count: number): Promise<void> {
  const before = page.ids.length;
  await page.until(() => page.ids.length >= before + count || undefined);
}

test('graceful and forced restarts under load neither lose nor duplicate an event', async (t) => {
  const server = await ServerProcess.start(t, { env: { STREAM_RETRY: '100' } });
  const pages = await openPages(server, 6);
  const backends = ['a', 'b', 'c', 'd'].map((name) => new Backend(server, name));
  t.after(() => {
    for (const page of pages) page.source.close();
    for (const backend of backends) backend.abort();
  });

  for (const signal of ['SIGTERM', 'SIGKILL', 'SIGTERM'] as const) {
    await Promise.all(pages.map((page) => waitForEvents(page, 50)));
    const code = await server.end(signal);
    assert.equal(code, signal === 'SIGTERM' ? 0 : null);
    await server.startOnSamePort();
  }
  await Promise.all(pages.map((page) => waitForEvents(page, 50)));
  await Promise.all(backends.map((backend) => backend.stop()));
  const published = backends.flatMap((backend) => backend.published);
  await Promise.all(
    pages.map((page) =>
      page.until(() => page.dataByType('message').length >= published.length || undefined),
    ),
  );

  for (const page of pages) {
    assert.deepEqual([...page.dataByType('message')].sort(), [...published].sort());
    assert.deepEqual(
      page.openings.map(({ reason }) => reason),
      ['fresh', ...page.openings.slice(1).map(() => 'resumed')],
    );
    assert.ok(page.openings.length >= 4);
    const seqs = page.ids.map((id) => Number(id.split('-')[1]));
    assert.deepEqual(
      seqs,
      [...seqs].sort((a, b) => a - b),
    );
  }
  assert.ok(
    backends.some(({ retries }) => retries > 0),
    'no publish was interrupted by a restart',
  );
});

test('the readiness check fails after a SIGTERM, and a second SIGTERM stops the server at once', async (t) => {
  const server = await ServerProcess.start(t, { env: { DRAIN_DELAY: '600000' } });
  const client = await server.connect();
  const stream = await client.listen('ada');
  assert.equal((await client.ask('GET', '/health/ready')).status, 200);

  server.signal('SIGTERM');
  let ready = await client.ask('GET', '/health/ready');
  await until(async () => {
    if (ready.status === 200) ready = await client.ask('GET', '/health/ready');
    return ready.status !== 200;
  });
  const newClient = await server.connect();
  const live = await newClient.ask('GET', '/health/live');
  const newStream = await newClient.listen('bob');
  const isOpen = !stream.isEnded && !newStream.isEnded;
  const code = await server.end('SIGTERM');

  assert.equal(ready.status, 503);
  assert.deepEqual(ready.body['checks'], { serving: 'failing', database: 'ok', logins: 'ok' });
  assert.equal(ready.headers['retry-after'], '1');
  assert.equal(live.status, 200);
  assert.ok(isOpen, 'streams stay open during the drain delay');
  assert.equal(code, 1);
});

test('a second SIGTERM during a login ends the server with code 1, after the hash', async (t) => {
  const env = {
    DRAIN_DELAY: '600000',
    ARGON2_TIME: '10',
    ARGON2_MEMORY_KIB: '65536',
    AUTH_WORKERS: '1',
  };
  const server = await ServerProcess.start(t, { env });
  const config = loadConfig(server.prepared.env);
  const { key: bearer } = await withAccounts(config, ({ apiKeys }) =>
    apiKeys.create({ name: 'monitor', scopes: ['metrics'] }),
  );
  recordSecret(bearer);
  const [client, monitor] = [await server.connect(), await server.connect()];
  const countRunningHashes = async () => {
    const { text } = await monitor.ask('GET', '/metrics', { bearer });
    return Number(/^herald_auth_jobs_running (\d+)$/m.exec(text)?.[1]);
  };
  const json = { username: 'nobody', password: 'costs a dummy hash' };
  void client.ask('POST', '/login', { json }).catch(() => 'cut off');
  await until(async () => (await countRunningHashes()) === 1);

  server.signal('SIGTERM');
  await until(() => server.lines.some(({ msg }) => msg === 'stopping')); // Signals do not queue.
  const code = await server.end('SIGTERM');

  assert.equal(code, 1);
});

test('on SIGTERM the server closes streams with a retry time, finishes a publish, and exits with 0', async (t) => {
  const env = { DRAIN_TIMEOUT: '60000', END_TIMEOUT: '60000', BODY_TIMEOUT: '60000' };
  const server = await ServerProcess.start(t, { env });
  const client = await server.connect();
  const streams = [await client.listen('ada'), await client.listen('bob')];
  const backend = await server.connect();
  const body = new PassThrough();
  const publishing = backend.ask('POST', '/events', {
    bearer: server.prepared.apiKey,
    headers: { 'content-type': 'application/json' },
    body,
  });
  body.write('{"to": "all", ');
  await backend.ask('GET', '/health/live'); // By the response, the bytes sent earlier have arrived.

  const exited = server.end('SIGTERM');
  const closings = await Promise.all(streams.map((stream) => stream.closing()));
  body.end('"data": "in flight"}');
  const published = await publishing;
  const code = await exited;
  await server.startOnSamePort();
  const newClient = await server.connect();
  const id = String(published.body['id']);
  const { status } = await newClient.openStream(await newClient.streamPath('ada'), {
    'last-event-id': id,
  });

  assert.deepEqual(closings, Array(2).fill({ code: 'draining', reconnect: true }));
  for (const { retries } of streams) assert.ok((retries.at(-1) ?? 0) >= 1000);
  assert.equal(published.status, 201);
  assert.equal(code, 0);
  assert.equal(status, 200);
  newClient.destroy();
});

for (const key of [undefined, 'a job']) {
  const state =
    key === undefined
      ? 'publishes the received lines of an open body'
      : 'publishes only full batches of an open body with a key';
  test(`a server that stops ${state}, and the response to this body has the number of published events`, async (t) => {
    const env = { DRAIN_TIMEOUT: '600000', END_TIMEOUT: '600000' };
    const server = await ServerProcess.start(t, { env });
    const backend = await server.connect();
    const body = new PassThrough();
    const publishing = backend.ask('POST', '/events', {
      bearer: server.prepared.apiKey,
      headers: {
        'content-type': 'application/x-ndjson',
        ...(key !== undefined && { 'idempotency-key': key }),
      },
      body,
    });
    const stream = await (await server.connect()).listen('ada');
    body.write('{"to": "all", "data": "first"}\n');
    if (key === undefined) await stream.until(() => stream.dataByType('message')[0]);
    body.write('{"to": "all", "data": "second"}\n{"to": "all", ');
    await backend.ask('GET', '/health/live'); // By the response, the bytes sent earlier have arrived.

    const exited = server.end('SIGTERM');
    const answer = await publishing;
    const code = await exited;

    await server.startOnSamePort();
    const later = await server.connect();
    const from = { 'last-event-id': (await stream.opening()).id };
    const resumed = await later.openStream(await later.streamPath('ada'), from);
    const json = { to: 'all', data: 'end' };
    await later.ask('POST', '/events', { bearer: server.prepared.apiKey, json });
    await resumed.until(() => resumed.dataByType('message').at(-1) === 'end' || undefined);
    const published = key === undefined ? ['first', 'second'] : [];
    assert.deepEqual([answer.status, answer.body['name']], [503, 'service_unavailable']);
    assert.deepEqual(answer.body['info'], { published: published.length });
    assert.match(answer.headers['retry-after'] ?? '', /^\d+$/);
    assert.deepEqual(resumed.dataByType('message'), [...published, 'end']);
    assert.equal(code, 0);
    body.destroy();
    later.destroy();
  });
}

test('a client that reads nothing does not keep the server from stopping', async (t) => {
  const env = { DRAIN_TIMEOUT: '1000', END_TIMEOUT: '600000', STREAM_STALL_TIMEOUT: '600000' };
  const server = await ServerProcess.start(t, { env });
  const client = await server.connect();
  const stream = await client.listen('ada');
  stream.stream.pause();
  for (let count = 0; count < 4; count += 1) {
    await client.ask('POST', '/events', {
      bearer: server.prepared.apiKey,
      json: { to: 'all', data: 'x'.repeat(60_000) },
    });
  }

  assert.equal(await server.end('SIGTERM'), 0);
});
