import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { Page } from 'playwright-core';
import { findChromium, openPage } from './support/clients/chromium.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { waitForCleanUp } from './support/recording/wait-for-log.js';
import { getPassword } from './support/servers/seed.js';
import { type System, startSystem } from './support/servers/system.js';
import { openTcpProxy } from './support/tcp-proxy.js';
import { until } from './support/until.js';

const executable = findChromium();
const skip = executable === undefined ? 'NO BROWSER: run test/browser.sh as root' : false;

/** Sets the retry time of refused clients to 100 ms instead of 10 to 30 s. */
const shortRetryRandom = () => -0.495;

/** Returns a script that opens a stream and records its events in `received`. */
const buildListenScript = (url: string) => `
  window.received = [];
  window.source = new EventSource(${JSON.stringify(url)});
  for (const type of ['message', 'stream.open', 'stream.close', 'count']) {
    source.addEventListener(type, ({ type, data, lastEventId }) => received.push({ type, data, lastEventId }));
  }`;

/** Serves an empty page until the test ends; returns its origin. */
async function serveSite(t: TestContext): Promise<string> {
  const site = createServer((_, response) => {
    response.setHeader('content-type', 'text/html').end('<!doctype html><title>test</title>');
  });
  site.listen(0, '127.0.0.1');
  await once(site, 'listening');
  t.after(() => {
    site.close();
    site.closeAllConnections();
  });
  return `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
}

/** Opens a page of another origin in a real browser; a proxy can cut its connections to Herald. */
async function openListeningPage(t: TestContext, env: Readonly<Record<string, string>> = {}) {
  const origin = await serveSite(t);
  const random = shortRetryRandom;
  const lines: Record<string, unknown>[] = [];
  const log = collectingLog(lines);
  const system = await startSystem(t, { env: { CORS_ORIGINS: origin, ...env }, random, log });
  const proxy = await openTcpProxy({ host: '127.0.0.1', port: Number(new URL(system.url).port) });
  t.after(() => void proxy.close());
  const page = await openPage(t, executable ?? '', origin);
  const client = await system.connect();
  const path = await client.streamPath('ada');
  await page.evaluate(buildListenScript(`https://127.0.0.1:${proxy.port}${path}`));
  return { system, lines, proxy, client, page: new PageObserver(page) };
}

/** Reads what a page has received. */
class PageObserver {
  readonly #page: Page;

  constructor(page: Page) {
    this.#page = page;
  }

  /** Resolves when an expression is true in the page. */
  async until(expression: string): Promise<void> {
    await this.#page.waitForFunction(expression, undefined, { polling: 10 });
  }

  async waitForMessage(id: string): Promise<void> {
    await this.until(`received.some(({ lastEventId, type }) =>
      type === 'message' && lastEventId === ${JSON.stringify(id)})`);
  }

  async dataByType(type: string): Promise<string[]> {
    const script = `received.filter((event) => event.type === '${type}').map(({ data }) => data)`;
    return this.#page.evaluate<string[]>(script);
  }

  async openings(): Promise<{ resumed: boolean; reason: string; id: string }[]> {
    return (await this.dataByType('stream.open')).map((data) => JSON.parse(data));
  }
}

function waitForOpening(page: PageObserver, count: number): Promise<void> {
  return page.until(`received.filter(({ type }) => type === 'stream.open').length >= ${count}`);
}

test("a browser's EventSource reconnects and misses no event", { skip }, async (t) => {
  const { system, proxy, page } = await openListeningPage(t);
  await waitForOpening(page, 1);
  const first = await system.publish('ada', 'before');
  await page.waitForMessage(first);

  proxy.block();
  const second = await system.publish('ada', 'while the network was cut');
  proxy.unblock();
  await page.waitForMessage(second);
  await system.restart();
  const third = await system.publish('ada', 'after a restart');
  await page.waitForMessage(third);

  assert.deepEqual(await page.dataByType('message'), [
    'before',
    'while the network was cut',
    'after a restart',
  ]);
  const openings = await page.openings();
  assert.deepEqual(
    openings.map(({ reason }) => reason),
    ['fresh', 'resumed', 'resumed'],
  );
  assert.deepEqual(
    openings.slice(1).map(({ id }) => id),
    [first, second],
  );
});

test("a browser's EventSource gets stream.close with reconnect false after a logout", {
  skip,
}, async (t) => {
  const { client, page } = await openListeningPage(t);
  await waitForOpening(page, 1);

  await client.ask('POST', '/logout', { bearer: await client.accessToken('ada') });
  await page.until(`received.some(({ type }) => type === 'stream.close')`);

  assert.deepEqual(
    (await page.dataByType('stream.close')).map((data) => JSON.parse(data).reconnect),
    [false],
  );
});

test("a browser's EventSource reconnects after a refusal and is notified of a gap", {
  skip,
}, async (t) => {
  const env = {
    MAX_STREAMS_PER_USER: '1',
    EVENT_LOG_MAX_EVENTS: '3',
    EVENT_LOG_MIN_AGE: '0',
    CLEANUP_INTERVAL: '1000',
  };
  const { system, lines, proxy, page } = await openListeningPage(t, env);
  await waitForOpening(page, 1);
  const first = await system.publish('ada', 'first');
  await page.waitForMessage(first);

  proxy.block();
  const rival = await occupySlot(system);
  for (let count = 0; count < 10; count += 1) await system.publish('ada', `lost ${count}`);
  proxy.unblock();
  await page.until(`received.some(({ type }) => type === 'stream.close')`);
  await waitForCleanUp(lines, 'eventLog', 2 * 8); // Deletes 8 of the 11 events and the audience of each.
  rival.abort();
  await waitForOpening(page, 2);
  const afterGap = await system.publish('ada', 'next');
  await page.waitForMessage(afterGap);

  const [, second] = await page.openings();
  assert.equal(second?.reason, 'too_old');
  assert.equal(second?.resumed, false);
  assert.deepEqual(await page.dataByType('message'), ['first', 'next']);
});

/** Logs in, opens a stream and tries to publish, all with credentials and a header of a tracing library. */
const buildCredentialsScript = (url: string, login: object) => `(async () => {
  const post = (path, headers, body) => fetch(${JSON.stringify(url)} + path, {
    method: 'POST',
    credentials: 'include',
    headers: { 'content-type': 'application/json', traceparent: '00-1-1-01', 'sentry-trace': '1-1', ...headers },
    body: JSON.stringify(body),
  }).then((answer) => answer.json());
  const { accessToken } = await post('/login', {}, ${JSON.stringify(login)});
  const authorization = 'Bearer ' + accessToken;
  const { streamToken } = await post('/stream/token', { authorization });
  const source = new EventSource(${JSON.stringify(url)} + '/stream/live/' + streamToken, { withCredentials: true });
  const opened = await new Promise((resolve) => {
    source.addEventListener('stream.open', () => resolve('open'));
    source.addEventListener('error', () => resolve('error'));
  });
  const published = await post('/events', { authorization }, {}).catch((error) => error.name);
  return { opened, published };
})()`;

test('a page of a listed origin can log in and listen with credentials and its own headers, but not publish', {
  skip,
}, async (t) => {
  const origin = await serveSite(t);
  const lines: Record<string, unknown>[] = [];
  const log = collectingLog(lines);
  const system = await startSystem(t, { env: { CORS_ORIGINS: origin }, log });
  const page = await openPage(t, executable ?? '', origin);
  const login = { username: 'ada', password: getPassword('ada') };

  const outcome = await page.evaluate(buildCredentialsScript(system.url, login));

  assert.deepEqual(outcome, { opened: 'open', published: 'TypeError' });
  const refused = lines.find(({ phrase }) => phrase === 'origin refused');
  assert.deepEqual([refused?.['origin'], refused?.['reason']], [origin, 'the path is for servers']);
});

/** Opens another stream of ada, which takes her only slot. */
async function occupySlot(system: System) {
  const client = await system.connect();
  const authorization = `Bearer ${await client.accessToken('ada')}`;
  let stream = await client.openStream('/stream/live', { authorization });
  await until(async () => {
    if ((await stream.outcome()) === 'open') return true;
    stream = await client.openStream('/stream/live', { authorization });
    return false;
  });
  return stream;
}
