import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { EventCollector } from './support/clients/event-collector.js';
import type { H2Client } from './support/clients/h2-client.js';
import { StalledClient } from './support/clients/stalled-client.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { measureResidentBytes, residentOptions } from './support/servers/resident-memory.js';
import { ServerProcess } from './support/servers/server-process.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

const mib = 1024 * 1024;
const clientKinds = [StalledClient.overClosedWindow, StalledClient.overH2, StalledClient.overH1];
/** Skips other systems, where freed memory may stay resident. */
const skipUnlessLinux = process.platform === 'linux' ? false : 'the limit is for Linux';

/** Herald in a separate process or in this one. */
interface Server {
  readonly url: string;
  readonly apiKey: string;
  connect(): Promise<H2Client>;
}

async function openStalled(
  t: TestContext,
  server: Server,
  count: number,
): Promise<StalledClient[]> {
  const client = await server.connect();
  const bearer = await client.accessToken('ada');
  client.destroy();
  const clients = await Promise.all(
    Array.from({ length: count }, (_, index) =>
      (clientKinds[index % clientKinds.length] ?? StalledClient.overH2)(server.url, bearer),
    ),
  );
  t.after(() => clients.map((stalled) => stalled.cut()));
  return clients;
}

interface PublishOptions {
  readonly count: number;
  /** Receives each batch before the next one is published. */
  readonly reader?: EventCollector;
  /** Called after each batch. */
  readonly afterBatch?: () => Promise<void>;
}

/**
 * Publishes `count` events of 32 KiB to everybody, 16 at a time. Returns the last id and the median time
 * from a publish to its receipt by the reader.
 */
async function publishMany(
  { apiKey: bearer }: Server,
  backend: H2Client,
  { count, reader, afterBatch }: PublishOptions,
) {
  let lastId = '';
  const latenciesMs: number[] = [];
  for (let index = 0; index < count; index += 16) {
    const json = Array.from({ length: 16 }, (_, offset) => ({
      to: 'all',
      data: `${index + offset} ${'x'.repeat(32_768)}`,
    }));
    const startedAt = performance.now();
    const { body, status, text } = await backend.ask('POST', '/events', { bearer, json });
    assert.equal(status, 201, text);
    lastId = (body['ids'] as string[]).at(-1) ?? '';
    await reader?.until(() => reader.lastId === lastId || undefined);
    latenciesMs.push(performance.now() - startedAt);
    await afterBatch?.();
  }
  latenciesMs.sort((a, b) => a - b);
  return { lastId, medianMs: latenciesMs[latenciesMs.length >> 1] ?? 0 };
}

const parseNumbers = (messages: readonly string[]) =>
  messages.map((data) => Number(data.split(' ')[0]));
const range = (count: number) => Array.from({ length: count }, (_, index) => index);

const [warmUpEvents, publishedEvents] = [16 * 32, 64 * 32]; // 32 events are 1 MiB.
/**
 * Without limits, memory grows by 47 MiB, although all clients queue the same Buffers. With copies of 256 KiB
 * per client, memory grows by 40 MiB.
 */
const growthBytesMax = 32 * mib;

test('stalled clients use little memory, do not delay other clients, and catch up without loss', {
  skip: skipUnlessLinux,
}, async (t) => {
  const env = {
    ...{ STREAM_STALL_TIMEOUT: '600000', MAX_STREAMS_PER_USER: '1000' },
    // Without these, the freed memory that glibc keeps varies.
    ...{ MALLOC_ARENA_MAX: '1', MALLOC_MMAP_THRESHOLD_: '32768' },
  };
  const server = await ServerProcess.start(t, { env, nodeOptions: residentOptions });
  const backend = await server.connect();
  t.after(() => backend.destroy());
  const reader = await backend.listen('bob');
  // Warm-up for costs that occur once.
  const withoutStalled = await publishMany(server, backend, { count: warmUpEvents, reader });
  const stalled = await openStalled(t, server, 200);
  const bytesBefore = await measureResidentBytes(server);

  let batches = 0;
  let peakBytes = 0;
  const withStalled = await publishMany(server, backend, {
    count: publishedEvents,
    reader,
    async afterBatch() {
      batches += 1;
      if (batches % 4 === 0) peakBytes = Math.max(peakBytes, await measureResidentBytes(server));
    },
  });
  const volatile = { to: 'all', type: 'passing', data: 'x', volatile: true };
  await backend.ask('POST', '/events', { bearer: server.prepared.apiKey, json: volatile });
  await reader.event('passing');
  const [returning, leaving] = [stalled.slice(0, 3), stalled.slice(3)];
  for (const client of leaving) client.cut();
  for (const client of returning) client.resumeReading();
  await Promise.all(
    returning.map((client) =>
      client.until(() => client.lastId === withStalled.lastId || undefined),
    ),
  );
  const getCloseLines = () => server.lines.filter(({ msg }) => msg === 'stream closed');
  await until(() => getCloseLines().length >= leaving.length);
  const grownBytes = peakBytes - bytesBefore;
  t.diagnostic(
    `200 clients that are 64 MiB behind hold ${(grownBytes / mib).toFixed(1)} MiB; others waited ` +
      `${withoutStalled.medianMs.toFixed(1)} ms without them, ${withStalled.medianMs.toFixed(1)} with`,
  );

  for (const client of returning) {
    assert.deepEqual(parseNumbers(client.dataByType('message')), range(publishedEvents));
    assert.deepEqual(client.dataByType('passing'), []);
  }
  // The cut clients got only what the kernel has buffered for them, not the rest of the event log.
  for (const { bytes } of getCloseLines())
    assert.ok(Number(bytes) < growthBytesMax, `${bytes} bytes written`);
  assert.deepEqual(parseNumbers(reader.dataByType('message')), [
    ...range(warmUpEvents),
    ...range(publishedEvents),
  ]);
  assert.ok(grownBytes < growthBytesMax, `${grownBytes} bytes more`);
  // If other clients waited for stalled ones, this would be minutes; the diagnostic has the numbers.
  assert.ok(
    withStalled.medianMs < withoutStalled.medianMs + 1000,
    `${withStalled.medianMs} ms for others`,
  );
});

test('a stalled client is disconnected and can resume', async (t) => {
  // The test advances the clock in steps too small to disconnect a reader that is late but makes progress.
  const time = { aheadMs: 0 };
  const stepMs = 10_000;
  const env = { STREAM_STALL_TIMEOUT: String(3 * stepMs), MAX_STREAMS_PER_USER: '1000' };
  const lines: Record<string, unknown>[] = [];
  const log = collectingLog(lines);
  const monotonicClock = () => performance.now() + time.aheadMs;
  const system = await startSystem(t, { env, log, monotonicClock });
  const backend = await system.connect();
  const reader = await (await system.connect()).listen('bob');
  const { lastId: firstId } = await publishMany(system, backend, { count: 16, reader });
  await openStalled(t, system, 60);

  const { lastId } = await publishMany(system, backend, { count: 256, reader });
  const getCloseReasons = () =>
    lines.flatMap(({ phrase, reason }) => (phrase === 'stream closed' ? [reason] : []));
  await until(async () => {
    await publishMany(system, backend, { count: 16, reader });
    time.aheadMs += stepMs;
    return getCloseReasons().length >= 60;
  });
  const resumed = await backend.listen('ada', { 'last-event-id': firstId });
  await resumed.until(() => resumed.ids.includes(lastId) || undefined);

  assert.deepEqual(getCloseReasons(), Array(60).fill('stalled'));
  assert.ok(!reader.isEnded);
  assert.deepEqual(parseNumbers(resumed.dataByType('message')).slice(0, 256), range(256));
});
