import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EventLog } from '../src/event-log/event-log.js';
import { allAudience, getAudiences, userAudience } from '../src/events/audience.js';
import { parsePosition } from '../src/events/event-id.js';
import { silentLogger } from '../src/logging/logger.js';
import { EventStream } from '../src/stream/event-stream.js';
import { Registry } from '../src/stream/registry.js';
import { UserCount } from '../src/stream/user-count.js';
import { WriteScheduler } from '../src/stream/write-scheduler.js';
import { SimulatedClient } from './support/clients/simulated-client.js';
import { MemoryLogStore } from './support/databases/memory-log-store.js';
import { races } from './support/races.js';
import { resolveStart } from './support/resolve-start.js';
import { unlimitedRetention } from './support/unlimited-retention.js';

/** Small enough that a few events fill a stream. */
const limits = {
  heartbeatMs: 15_000,
  stallMs: 30_000,
  unsentSoftBytes: 400,
  unsentHardBytes: 100_000,
  retryMs: 2000,
};
const userIds = ['1', '2', '3'];

const anyUser = fc.integer({ min: 0, max: userIds.length - 1 });
const anyAction = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('publish' as const),
      to: anyUser,
      times: fc.integer({ min: 1, max: 6 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('broadcast' as const) }) },
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('step' as const), choice: fc.nat(9) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('tick' as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('accept' as const),
      who: anyUser,
      bytesMax: fc.nat(300),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('connect' as const), who: anyUser }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('disconnect' as const), who: anyUser }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.nat(40_000) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('trim' as const), keep: fc.nat(6) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
);
type Action = typeof anyAction extends fc.Arbitrary<infer Kind> ? Kind : never;

/** Events reported to a client as lost: those with `from` < seq <= `to`. */
interface ReportedLoss {
  readonly client: SimulatedClient;
  readonly from: number;
  readonly to: number;
}

/** Successive server processes on one event log, and clients that connect and disconnect. */
class Simulation {
  readonly store = new MemoryLogStore('e');
  readonly clients = userIds.map((id) => new SimulatedClient(id));
  readonly reportedLosses: ReportedLoss[] = [];
  readonly acknowledged: string[] = [];
  readonly firstSeqs = new Map<SimulatedClient, number>();
  now = 1_000_000;
  #process:
    | { eventLog: EventLog; registry: Registry; userCount: UserCount; scheduler: WriteScheduler }
    | undefined;
  #published = 0;

  async boot(): Promise<void> {
    this.store.release();
    const wallClock = () => this.now;
    const eventLog = await EventLog.open({
      store: this.store,
      log: silentLogger,
      wallClock,
      limits: unlimitedRetention,
    });
    const streamLimits = { streamsMax: 100, perUserMax: 100, perIpMax: 100 };
    const registry = new Registry({
      limits: streamLimits,
      monotonicClock: wallClock,
      random: () => 0,
    });
    eventLog.subscribe(registry);
    const userCount = new UserCount(registry);
    this.#process = { eventLog, registry, userCount, scheduler: new WriteScheduler(wallClock) };
    this.store.hold();
  }

  async act(action: Action): Promise<void> {
    if (action.kind === 'publish') {
      for (let time = 0; time < action.times; time += 1)
        this.#publish(userAudience(userIds[action.to] ?? ''));
    }
    if (action.kind === 'broadcast') this.#publish(allAudience);
    if (action.kind === 'step') this.store.step(action.choice);
    if (action.kind === 'tick') await new Promise((resolve) => setImmediate(resolve));
    if (action.kind === 'accept') this.#client(action.who).sink?.acceptBytes(action.bytesMax);
    if (action.kind === 'connect') void this.#connect(this.#client(action.who));
    if (action.kind === 'disconnect') this.#client(action.who).sink?.destroy();
    if (action.kind === 'trim') this.#trim(action.keep);
    if (action.kind === 'restart') await this.#restart();
    if (action.kind === 'wait') {
      this.now += action.ms;
      this.#process?.registry.tick();
      this.#process?.userCount.tick();
    }
    await Promise.resolve();
  }

  /** Completes all pending work: the store proceeds, and every client reads and reconnects. */
  async settle(): Promise<void> {
    this.store.release();
    for (let round = 0; round < 200; round += 1) {
      for (const client of this.clients) {
        if (client.sink === undefined || client.sink.closed) await this.#connect(client);
        client.sink?.acceptBytes(1_000_000);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  get registry(): Registry | undefined {
    return this.#process?.registry;
  }

  #client(index: number): SimulatedClient {
    return this.clients[index] as SimulatedClient; // Safe: indexes come from `anyUser`.
  }

  #publish(audience: string): void {
    this.#published += 1;
    const event = {
      audiences: [audience],
      type: undefined,
      data: `event ${this.#published} ${'x'.repeat(40)}`,
      volatile: false,
      expiresAt: undefined,
    };
    void this.#process?.eventLog
      .publish([event], undefined)
      .then((ids) => this.acknowledged.push(...ids.map(String)));
  }

  /** Does what `Streams` does: resolves the start, then opens and registers synchronously. */
  async #connect(client: SimulatedClient): Promise<void> {
    const running = this.#process;
    if (running === undefined || (client.sink !== undefined && !client.sink.closed)) return;
    const sink = client.connect();
    const { eventLog, registry, userCount, scheduler } = running;
    const audiences = getAudiences(client.userId, `s${client.userId}`);
    const { lastEventId } = client;
    const firstSeq = this.firstSeqs.get(client);
    const start =
      lastEventId === undefined && firstSeq !== undefined
        ? await resolveStart(eventLog, audiences, undefined, eventLog.format(firstSeq)) // Where the token begins.
        : await resolveStart(eventLog, audiences, lastEventId);
    if (this.#process !== running || sink.closed) return;
    if (!this.firstSeqs.has(client)) this.firstSeqs.set(client, start.seq);
    else if (!start.resumed) {
      const from = lastEventId === undefined ? (firstSeq ?? 0) : getSeq(lastEventId);
      this.reportedLosses.push({ client, from, to: start.seq });
    }
    const stream = new EventStream({
      id: 'c',
      subscriber: {
        userId: client.userId,
        sessionId: 's',
        audiences,
        ipKey: 'ip',
        tokenHash: undefined,
      },
      client: { address: '192.0.2.1', userAgent: undefined },
      openedAt: 0,
      start,
      headAtOpen: eventLog.head,
      claim: undefined,
      publicId: 'public',
      endsAt: 1e12,
      hasHeartbeatEvents: false,
      sink,
      eventLog,
      scheduler,
      limits,
      monotonicClock: () => this.now,
      random: () => 0,
      onEnd: (ended) => {
        registry.remove(ended);
        userCount.remove(ended);
      },
    });
    registry.add(stream, registry.pendingOpens.add());
    userCount.add(stream);
    stream.open();
  }

  #trim(keep: number): void {
    // Keeps undelivered events, because real age and size limits never trim events so soon.
    const head = this.#process?.eventLog.head ?? 0;
    this.store.trimmedSeq = Math.max(this.store.trimmedSeq, head - keep);
  }

  async #restart(): Promise<void> {
    this.store.dropPending();
    for (const client of this.clients) client.sink?.destroy();
    await this.boot();
  }
}

function getSeq(id: string): number {
  const position = parsePosition(id);
  assert.ok(position !== undefined);
  return position.seq;
}

/** Asserts that each client got all its events once and in order, or was notified of the loss. */
function check(simulation: Simulation): void {
  for (const client of simulation.clients) {
    const seqs = client.received.map(({ id }) => getSeq(id));
    assert.deepEqual(
      seqs,
      [...new Set(seqs)].sort((a, b) => a - b),
      'once and in order',
    );
    const got = new Set(seqs);
    const firstSeq = simulation.firstSeqs.get(client) ?? 0;
    const audiences = getAudiences(client.userId, 's');
    for (const event of simulation.store.entries) {
      if ('control' in event) continue;
      const isForClient = event.audiences.some((word) => audiences.includes(word));
      assert.ok(isForClient || !got.has(event.seq), `event ${event.seq} is for another user`);
      if (!isForClient || event.seq <= firstSeq || got.has(event.seq)) continue;
      const isReported = simulation.reportedLosses.some(
        ({ client: notified, from, to }) =>
          notified === client && event.seq > from && event.seq <= to,
      );
      assert.ok(isReported, `event ${event.seq} is missing for user ${client.userId}, silently`);
    }
  }
  for (const id of simulation.acknowledged) {
    assert.ok(
      simulation.store.entries[getSeq(id) - 1] !== undefined,
      'acknowledged events are kept',
    );
  }
}

test('in random interleavings every event arrives once and in order, or is reported as lost', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyAction, { minLength: 10, maxLength: 200, size: 'max' }),
      async (actions) => {
        const simulation = new Simulation();
        await simulation.boot();
        for (const action of actions) await simulation.act(action);
        await simulation.settle();
        check(simulation);
        for (const client of simulation.clients) client.sink?.destroy();
        await new Promise((resolve) => setImmediate(resolve));
        assert.ok(
          simulation.registry?.isEmpty,
          'the registry is empty when all clients have disconnected',
        );
      },
    ),
    { numRuns: races.runs, seed: races.seed },
  );
});
