import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { EventCollector } from './support/clients/event-collector.js';
import type { H2Client } from './support/clients/h2-client.js';
import { StalledClient } from './support/clients/stalled-client.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { residentBytes, residentOptions } from './support/servers/resident-memory.js';
import { ServerProcess } from './support/servers/server-process.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

const mib = 1024 * 1024;
const kinds = [StalledClient.overClosedWindow, StalledClient.overH2, StalledClient.overH1];
/** On other systems freed memory may stay resident. */
const notLinux = process.platform === 'linux' ? false : 'the limit is for Linux';

/** Herald in a process of its own, or in this one. */
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
      (kinds[index % kinds.length] ?? StalledClient.overH2)(server.url, bearer),
    ),
  );
  t.after(() => clients.map((stalled) => stalled.cut()));
  return clients;
}

interface Publishing {
  readonly count: number;
  /** Receives each batch before the next one is published. */
  readonly reader?: EventCollector;
  /** Called after each batch. */
  readonly between?: () => Promise<void>;
}

/**
 * Publishes `count` events of 32 KiB to everybody, 16 at a time. Returns the last id and the median time
 * from a publish to its receipt by the reader.
 */
async function publishMany(
  { apiKey: bearer }: Server,
  backend: H2Client,
  { count, reader, between }: Publishing,
) {
  let last = '';
  const tookMs: number[] = [];
  for (let index = 0; index < count; index += 16) {
    const json = Array.from({ length: 16 }, (_, at) => ({
      to: 'all',
      data: `${index + at} ${'x'.repeat(32_768)}`,
    }));
    const startedAt = performance.now();
    const { body, status, text } = await backend.ask('POST', '/events', { bearer, json });
    assert.equal(status, 201, text);
    last = (body['ids'] as string[]).at(-1) ?? '';
    await reader?.until(() => reader.lastId === last || undefined);
    tookMs.push(performance.now() - startedAt);
    await between?.();
  }
  tookMs.sort((a, b) => a - b);
  return { last, medianMs: tookMs[tookMs.length >> 1] ?? 0 };
}

const parseNumbers = (messages: readonly string[]) =>
  messages.map((data) => Number(data.split(' ')[0]));
const range = (count: number) => Array.from({ length: count }, (_, index) => index);

const [warmUp, published] = [16 * 32, 64 * 32]; // Events; 32 of them are 1 MiB.
/** Without limits growth is 47 MiB although all queue the same Buffers, with 256 KiB copies each 40 MiB. */
const growthMax = 32 * mib;

test('stalled clients use little memory, delay no others, and catch up without loss', {
  skip: notLinux,
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
  const alone = await publishMany(server, backend, { count: warmUp, reader });
  const stalled = await openStalled(t, server, 200);
  const before = await residentBytes(server);

  let batches = 0;
  let peak = 0;
  const loaded = await publishMany(server, backend, {
    count: published,
    reader,
    async between() {
      batches += 1;
      if (batches % 4 === 0) peak = Math.max(peak, await residentBytes(server));
    },
  });
  const volatile = { to: 'all', type: 'passing', data: 'x', volatile: true };
  await backend.ask('POST', '/events', { bearer: server.prepared.apiKey, json: volatile });
  await reader.event('passing');
  const [returning, leaving] = [stalled.slice(0, 3), stalled.slice(3)];
  for (const client of leaving) client.cut();
  for (const client of returning) client.resumeReading();
  await Promise.all(
    returning.map((client) => client.until(() => client.lastId === loaded.last || undefined)),
  );
  const closed = () => server.lines.filter(({ msg }) => msg === 'stream closed');
  await until(() => closed().length >= leaving.length);
  const grown = peak - before;
  t.diagnostic(
    `200 clients behind by 64 MiB hold ${(grown / mib).toFixed(1)} MiB; others waited ` +
      `${alone.medianMs.toFixed(1)} ms without them, ${loaded.medianMs.toFixed(1)} with`,
  );

  for (const client of returning) {
    assert.deepEqual(parseNumbers(client.dataByType('message')), range(published));
    assert.deepEqual(client.dataByType('passing'), []);
  }
  // Only what the kernel has buffered for them, not the rest of the event log.
  for (const { bytes } of closed()) assert.ok(Number(bytes) < growthMax, `${bytes} bytes written`);
  assert.deepEqual(parseNumbers(reader.dataByType('message')), [
    ...range(warmUp),
    ...range(published),
  ]);
  assert.ok(grown < growthMax, `${grown} bytes more`);
  // If others waited for stalled clients, it would take minutes; the diagnostic has the numbers.
  assert.ok(loaded.medianMs < alone.medianMs + 1000, `${loaded.medianMs} ms for others`);
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
  const { last: first } = await publishMany(system, backend, { count: 16, reader });
  await openStalled(t, system, 60);

  const { last } = await publishMany(system, backend, { count: 256, reader });
  const reasons = () =>
    lines.flatMap(({ phrase, reason }) => (phrase === 'stream closed' ? [reason] : []));
  await until(async () => {
    await publishMany(system, backend, { count: 16, reader });
    time.aheadMs += stepMs;
    return reasons().length >= 60;
  });
  const again = await backend.listen('ada', { 'last-event-id': first });
  await again.until(() => again.ids.includes(last) || undefined);

  assert.deepEqual(reasons(), Array(60).fill('stalled'));
  assert.ok(!reader.isEnded);
  assert.deepEqual(parseNumbers(again.dataByType('message')).slice(0, 256), range(256));
});
