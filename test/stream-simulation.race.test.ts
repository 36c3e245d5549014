import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EventLog } from '../src/event-log/event-log.js';
import { audiencesOf, everybody, userAudience } from '../src/events/audience.js';
import { parsePosition } from '../src/events/event-id.js';
import { silentLog } from '../src/logging/log.js';
import { Connection } from '../src/stream/event-stream.js';
import { Registry } from '../src/stream/registry.js';
import { UserCount } from '../src/stream/user-count.js';
import { Outbox } from '../src/stream/write-scheduler.js';
import { SimulatedClient } from './support/clients/simulated-client.js';
import { MemoryLog } from './support/databases/memory-log.js';
import { races } from './support/races.js';

/** Small enough that a few events fill a connection. */
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
    arbitrary: fc.record({ kind: fc.constant('take' as const), who: anyUser, most: fc.nat(300) }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('connect' as const), who: anyUser }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('drop' as const), who: anyUser }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.nat(40_000) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('trim' as const), keep: fc.nat(6) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
);
type Action = typeof anyAction extends fc.Arbitrary<infer Kind> ? Kind : never;

/** An interval of the log that a client was told it has lost: after `from`, up to `to`. */
interface Told {
  readonly client: SimulatedClient;
  readonly from: number;
  readonly to: number;
}

/** One server process after another over one log, and clients that come and go. */
class World {
  readonly store = new MemoryLog('e');
  readonly clients = userIds.map((id) => new SimulatedClient(id));
  readonly told: Told[] = [];
  readonly acknowledged: string[] = [];
  readonly begun = new Map<SimulatedClient, number>();
  now = 1_000_000;
  #process: { log: EventLog; registry: Registry; userCount: UserCount; outbox: Outbox } | undefined;
  #published = 0;

  async boot(): Promise<void> {
    this.store.openGates();
    const clock = () => this.now;
    const log = await EventLog.open({
      store: this.store,
      log: silentLog,
      clock,
      limits: { ageMaxMs: 1e9, eventsMax: 1e9, bytesMax: 1e9 },
    });
    const streams = { streamsMax: 100, perUserMax: 100, perIpMax: 100 };
    const registry = new Registry({ limits: streams, uptime: clock });
    log.subscribe(registry);
    const userCount = new UserCount(registry);
    this.#process = { log, registry, userCount, outbox: new Outbox(clock) };
    this.store.closeGates();
  }

  async act(action: Action): Promise<void> {
    if (action.kind === 'publish') {
      for (let time = 0; time < action.times; time += 1)
        this.#publish(userAudience(userIds[action.to] ?? ''));
    }
    if (action.kind === 'broadcast') this.#publish(everybody);
    if (action.kind === 'step') this.store.step(action.choice);
    if (action.kind === 'tick') await new Promise((resolve) => setImmediate(resolve));
    if (action.kind === 'take') this.#client(action.who).sink?.take(action.most);
    if (action.kind === 'connect') void this.#connect(this.#client(action.who));
    if (action.kind === 'drop') this.#client(action.who).sink?.cut();
    if (action.kind === 'trim') this.#trim(action.keep);
    if (action.kind === 'restart') await this.#restart();
    if (action.kind === 'wait') {
      this.now += action.ms;
      this.#process?.registry.tick();
      this.#process?.userCount.tick();
    }
    await Promise.resolve();
  }

  /** Lets everything finish: gates open, every client reads on and comes back until it has all. */
  async settle(): Promise<void> {
    this.store.openGates();
    for (let round = 0; round < 200; round += 1) {
      for (const client of this.clients) {
        if (client.sink === undefined || client.sink.closed) await this.#connect(client);
        client.sink?.take(1_000_000);
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
    void this.#process?.log
      .publish([event], undefined)
      .then((ids) => this.acknowledged.push(...ids.map(String)));
  }

  /** As `Streams` does it: look up the start, then open and register in one go. */
  async #connect(client: SimulatedClient): Promise<void> {
    const running = this.#process;
    if (running === undefined || (client.sink !== undefined && !client.sink.closed)) return;
    const sink = client.connect();
    const { log, registry, userCount, outbox } = running;
    const audiences = audiencesOf(client.userId, `s${client.userId}`);
    const { lastEventId } = client;
    const begun = this.begun.get(client);
    const start =
      lastEventId === undefined && begun !== undefined
        ? await log.startFrom(audiences, log.format(begun)) // The token remembers where it began.
        : await log.startFor(audiences, lastEventId);
    if (this.#process !== running || sink.closed) return;
    if (!this.begun.has(client)) this.begun.set(client, start.seq);
    else if (!start.resumed) {
      const from = lastEventId === undefined ? (begun ?? 0) : seqOf(lastEventId);
      this.told.push({ client, from, to: start.seq });
    }
    const connection = new Connection({
      id: 'c',
      reader: { userId: client.userId, sessionId: 's', audiences, ip: 'ip', tokenHash: undefined },
      start,
      sink,
      log,
      outbox,
      limits,
      uptime: () => this.now,
      random: () => 0,
      onEnd: (ended) => {
        registry.remove(ended);
        userCount.remove(ended);
      },
    });
    registry.add(connection);
    userCount.add(connection);
    connection.open();
  }

  #trim(keep: number): void {
    // Never what has not been delivered yet: age and size limits are far from that.
    const head = this.#process?.log.head ?? 0;
    this.store.trimmedSeq = Math.max(this.store.trimmedSeq, head - keep);
  }

  async #restart(): Promise<void> {
    this.store.forget();
    for (const client of this.clients) client.sink?.cut();
    await this.boot();
  }
}

function seqOf(id: string): number {
  const position = parsePosition(id);
  assert.ok(position !== undefined);
  return position.seq;
}

/** Every event that a client may see since it first came: once, in order, or told to be lost. */
function check(world: World): void {
  for (const client of world.clients) {
    const seqs = client.received.map(({ id }) => seqOf(id));
    assert.deepEqual(
      seqs,
      [...new Set(seqs)].sort((a, b) => a - b),
      'once and in order',
    );
    const got = new Set(seqs);
    const begun = world.begun.get(client) ?? 0;
    const audiences = audiencesOf(client.userId, 's');
    for (const event of world.store.events) {
      const isForIt = event.audiences.some((word) => audiences.includes(word));
      assert.ok(isForIt || !got.has(event.seq), `event ${event.seq} is for somebody else`);
      if (!isForIt || event.seq <= begun || got.has(event.seq)) continue;
      const wasTold = world.told.some(
        ({ client: whom, from, to }) => whom === client && event.seq > from && event.seq <= to,
      );
      assert.ok(wasTold, `event ${event.seq} is missing for user ${client.userId}, silently`);
    }
  }
  for (const id of world.acknowledged) {
    assert.ok(world.store.events[seqOf(id) - 1] !== undefined, 'acknowledged events are kept');
  }
}

test('whatever happens, every event arrives once and in order, or is told to be lost', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyAction, { minLength: 10, maxLength: 200, size: 'max' }),
      async (actions) => {
        const world = new World();
        await world.boot();
        for (const action of actions) await world.act(action);
        await world.settle();
        check(world);
        for (const client of world.clients) client.sink?.cut();
        await new Promise((resolve) => setImmediate(resolve));
        assert.ok(world.registry?.isEmpty, 'the registry is empty when everyone has left');
      },
    ),
    { numRuns: races.runs, seed: races.seed },
  );
});
