import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, request } from 'node:https';
import { type TestContext, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createSelfSigned } from '../src/certificates/self-signed.js';
import { loadConfig } from '../src/config/config.js';
import { Failure } from '../src/errors.js';
import { controlEntryAppender, openEventLog } from '../src/event-log/open.js';
import { HttpServer } from '../src/http/server.js';
import { publisherKeys } from '../src/identity/api-keys.js';
import { silentLogger } from '../src/logging/logger.js';
import { WarningAggregator } from '../src/logging/warning-aggregator.js';
import { Metrics } from '../src/metrics.js';
import { openStreaming } from '../src/stream/open.js';
import { H2Client } from './support/clients/h2-client.js';
import { races } from './support/races.js';
import { newUser, openSession, sessionsFor } from './support/servers/auth.js';
import { until } from './support/until.js';
import { withDeadline } from './support/with-deadline.js';

const { certificate, privateKey } = createSelfSigned(['localhost', '127.0.0.1'], Date.now());

/** Serves streams with a real server and database; the header `x-session` contains the session id. */
async function openServer(t: TestContext) {
  const { db, wallClock, users, sessions } = await sessionsFor(t);
  const sessionIds: string[] = [];
  for (let count = 0; count < 20; count += 1) {
    sessionIds.push((await openSession(sessions, await newUser(users))).sessionId);
  }
  const config = loadConfig({
    ...{ MAX_STREAMS_PER_USER: '1000000', MAX_STREAMS_PER_IP: '1000000' },
    ...{ ACCEPT_RATE: '1000000/1000', ACCEPT_IP_RATE: '1000000/1000' },
  });
  const warnings = new WarningAggregator({ log: silentLogger, monotonicClock: wallClock });
  const eventLog = await openEventLog({
    ...{
      db,
      log: silentLogger,
      wallClock,
      newEpoch: 'e',
      limits: config.eventLog,
      onReplaced() {},
      publisherKeys,
    },
  });
  const streaming = await openStreaming({
    ...{
      db,
      eventLog,
      log: silentLogger,
      wallClock,
      monotonicClock: wallClock,
      random: Math.random,
      appendControlEntries: controlEntryAppender(db, wallClock),
    },
    config: config.stream,
    metrics: new Metrics(),
    warnings,
    access: {
      verifyUser:
        async ({ headers }) =>
        async () => {
          const session = await sessions.findLive(headers['x-session'] ?? '');
          if (session !== undefined) return { ...session, isForeign: false };
          throw new Failure('invalid_token', 'The session has ended');
        },
      parseCredential: () => '',
      findLiveSession: (id) => sessions.findLive(id),
      checkTokenRate() {},
      reportLeak() {},
      checkStreamRate() {},
    },
  });
  const server = await HttpServer.listen({
    certificate: { key: privateKey, cert: certificate },
    ...{ host: '127.0.0.1', port: 0, log: silentLogger },
    ...{
      routes: streaming.routes,
      challenge: 'none',
      corsOrigins: [],
      isHstsEnabled: true,
      trustProxyHops: 0,
    },
    warnings,
    limits: config.http.limits,
  });
  t.after(async () => {
    await server.close(1000);
    await streaming.close();
    await eventLog.close();
  });
  return { server, eventLog, streaming, sessionIds };
}

/** Returns a generator of numbers from 0 to 1 that are determined by the seed. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 4_294_967_296;
    return state / 4_294_967_296;
  };
}

/** Clients that connect one after another, may wait for `stream.open`, and disconnect in a random way. */
class RandomClients {
  readonly #url: string;
  readonly #random: () => number;
  readonly #sessionIds: readonly string[];
  #client: H2Client | undefined;

  constructor(port: number, sessionIds: readonly string[], random: () => number) {
    this.#sessionIds = sessionIds;
    this.#url = `https://127.0.0.1:${port}`;
    this.#random = random;
  }

  async visit(): Promise<void> {
    const path = this.#random() < 0.5 ? '/stream/live' : await this.#tokenPath();
    if (this.#random() < 0.2) return this.#visitOverH1(path);
    await this.#visitOverH2(path);
  }

  async leave(): Promise<void> {
    await this.#client?.close();
  }

  async #tokenPath(): Promise<string> {
    this.#client ??= await H2Client.connect(this.#url, { ca: certificate });
    const { body } = await this.#client.ask('POST', '/stream/token', { headers: this.#headers });
    return `/stream/live/${body['streamToken']}`;
  }

  async #visitOverH2(path: string): Promise<void> {
    this.#client ??= await H2Client.connect(this.#url, { ca: certificate });
    const client = this.#client;
    const opening = client.openStream(path, this.#headers);
    const ending = this.#random();
    if (ending < 0.1) {
      this.#client = undefined;
      client.destroy(); // The response has not arrived yet.
      return opening.then(() => {}).catch(() => {});
    }
    const stream = await opening;
    if (ending < 0.9) await stream.opening();
    if (ending < 0.2) this.#client = undefined;
    if (ending < 0.2) client.destroy();
    else stream.abort();
    await stream.ended();
  }

  async #visitOverH1(path: string): Promise<void> {
    const options = { headers: this.#headers, ca: certificate, agent: new Agent() };
    const outgoing = request(this.#url + path, options);
    const closed = new Promise((resolve) => outgoing.once('close', resolve));
    outgoing.on('error', () => {}); // `close` follows.
    outgoing.end();
    if (this.#random() < 0.7) {
      const [response] = await withDeadline(once(outgoing, 'response'), 'a response head');
      response.on('error', () => {});
      await withDeadline(once(response, 'data'), 'the first bytes of a stream');
    }
    outgoing.destroy();
    await closed;
  }

  get #headers() {
    const index = Math.floor(this.#random() * this.#sessionIds.length);
    return { 'x-session': this.#sessionIds[index] };
  }
}

/** Returns the used heap bytes after garbage collection. */
function measureHeapBytes(): number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  for (let round = 0; round < 3; round += 1) collect();
  return process.memoryUsage().heapUsed;
}

/** Limit for growth by caches and compiled code, which does not depend on the number of runs. */
const growthBytesMax = 3 * 1024 * 1024;

const countTimers = () =>
  process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;

const visitorCount = 8;
const visitsPerVisitor = 2;
const warmUpRuns = 30;
/** More events than the event log keeps in memory. */
const recentEventsMax = 25_000;
const event = { audiences: ['all'], type: undefined, data: 'x', expiresAt: undefined };

test('no state remains when all clients have disconnected', async (t) => {
  const { server, eventLog, streaming, sessionIds } = await openServer(t);
  const { registry, streams } = streaming;
  const run = async (seed: number) => {
    const random = randomFrom(seed);
    const visitors = Array.from(
      { length: visitorCount },
      () => new RandomClients(server.port, sessionIds, random),
    );
    await Promise.all(
      visitors.map(async (visitor) => {
        for (let visit = 0; visit < visitsPerVisitor; visit += 1) {
          await visitor.visit();
          await eventLog.append({ events: [event], idempotency: undefined });
          streams.tick();
        }
      }),
    );
    await Promise.all(visitors.map((visitor) => visitor.leave()));
    await until(() => registry.isEmpty && server.connections === 0);
    await streams.close(); // Completes the pending writes of stream tokens.
    assert.deepEqual(streams.subscribers, []);
  };
  // Warm-up: compiles code, and fills caches and the part of the event log that is kept in memory.
  const events = Array.from({ length: 500 }, () => event);
  for (let count = 0; count < recentEventsMax; count += events.length) {
    await eventLog.append({ events, idempotency: undefined });
  }
  for (let index = 0; index < warmUpRuns; index += 1) await run(races.seed - 1 - index);
  await until(() => countTimers() === 0); // Connections that have just ended may still have some.
  const bytesBefore = measureHeapBytes();

  for (let index = 0; index < races.runs; index += 1) await run(races.seed + index);

  await until(() => countTimers() === 0);
  let grownBytes = 0;
  await until(() => {
    grownBytes = measureHeapBytes() - bytesBefore;
    return grownBytes <= growthBytesMax;
  }).catch(() => {});
  t.diagnostic(`heap ${bytesBefore} bytes, ${grownBytes} more`);
  assert.ok(grownBytes <= growthBytesMax, `${grownBytes} bytes more`);
});
