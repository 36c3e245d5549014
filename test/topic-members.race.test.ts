import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { formatPosition, parsePosition } from '../src/events/event-id.js';
import { H2Client, type H2Stream } from './support/clients/h2-client.js';
import { allDialects } from './support/databases/dialects.js';
import { skipFor } from './support/databases/new-database.js';
import type { ServerDialect } from './support/databases/test-server.js';
import { races, randomFrom } from './support/races.js';
import { clusterFor } from './support/servers/cluster.js';
import { launch } from './support/servers/launch.js';
import { prepare } from './support/servers/seed.js';

interface Deployment {
  readonly apiKey: string;
  readonly urls: readonly string[];
}

async function startThreeProcesses(t: TestContext, dialect: ServerDialect): Promise<Deployment> {
  const { apiKey, start } = await clusterFor(t, dialect);
  const apps = [await start(), await start(), await start()];
  return { apiKey, urls: apps.map(({ port }) => `https://127.0.0.1:${port}`) };
}

async function startEmbedded(t: TestContext): Promise<Deployment> {
  const { folder, env, apiKey } = await prepare();
  const server = await launch({ env, cwd: folder });
  t.after(async () => {
    await server.end('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });
  return { apiKey, urls: [server.url] };
}

/** See `control-entries.race.test.ts`. */
const concurrentRunsMax = 2;
/** Limit of a random delay, in iterations of the event loop. */
const turnsMax = 40;
/** Number of events that each publisher publishes after the removal is acknowledged. */
const eventsAfterRemoval = 2;

interface PublishedEvent {
  readonly seq: number;
  readonly data: string;
}

/**
 * One run: a user joins a topic and is removed while events of the topic are published and streams are opened. Each
 * stream must have received exactly the events between the two entries, or its client is told that some are missing.
 */
class Race {
  readonly #name: string;
  readonly #apiKey: string;
  readonly #clients: readonly H2Client[];
  readonly #random: () => number;
  readonly #user: string;
  readonly #topic: string;
  readonly #published: PublishedEvent[] = [];
  /** Data of the events that were published after the removal was acknowledged; no stream may receive them. */
  readonly #forbidden = new Set<string>();
  #epoch = '';
  #count = 0;
  #isRemoved = false;
  #joinedAt = 0;
  #removedAt = 0;

  constructor(name: string, apiKey: string, clients: readonly H2Client[], random: () => number) {
    this.#name = name;
    this.#apiKey = apiKey;
    this.#clients = clients;
    this.#random = random;
    this.#user = `race:${name}`;
    this.#topic = `topic:${name}`;
  }

  /** Returns the number of events of the topic that the streams received. */
  async run(): Promise<number> {
    const paths = [await this.#mintTicket(), await this.#mintTicket()] as const;
    const stream = await this.#pickClient().openStream(paths[0]);
    await stream.opening();
    const startAt = await this.#publish('before');

    const [late] = await Promise.all([
      this.#waitTurns().then(() => this.#open(paths[1], startAt)),
      this.#publishUntilRemoved(),
      this.#publishUntilRemoved(),
      this.#joinAndLeave(),
    ]);
    const marker = `${this.#name}:marker`;
    await this.#ask('/v1/events', { to: { users: [this.#user] }, data: marker }, 201);

    await this.#check(stream, paths[0], marker);
    await this.#check(late, paths[1], marker);
    return this.#getTopicData(stream).length + this.#getTopicData(late).length;
  }

  async #joinAndLeave(): Promise<void> {
    await this.#waitTurns();
    this.#joinedAt = await this.#change('/v1/topics/members', { add: [this.#user] });
    await this.#waitTurns();
    const isRevocation = this.#random() < 0.3;
    this.#removedAt = isRevocation
      ? await this.#change('/v1/topics/revoke', { users: [this.#user] })
      : await this.#change('/v1/topics/members', { remove: [this.#user] });
    this.#isRemoved = true;
  }

  /** Returns the number of the entry. */
  async #change(path: string, change: object): Promise<number> {
    const { id } = await this.#ask(path, { topic: this.#topic, ...change }, 200);
    return getSeq(id);
  }

  async #publishUntilRemoved(): Promise<void> {
    for (let after = 0; after < eventsAfterRemoval; ) {
      const isForbidden = this.#isRemoved;
      if (this.#random() < 0.2) {
        const data = await this.#publishVolatile();
        if (isForbidden) this.#forbidden.add(data);
        continue;
      }
      const seq = await this.#publish(isForbidden ? 'after' : 'event');
      if (!isForbidden) continue;
      const data = this.#published.find((event) => event.seq === seq)?.data;
      this.#forbidden.add(data ?? '');
      after += 1;
    }
  }

  /** Publishes an event of the topic and returns its number. */
  async #publish(word: string): Promise<number> {
    this.#count += 1;
    const data = `${this.#name}:${word}:${this.#count}`;
    const { id } = await this.#ask('/v1/events', { to: { topics: [this.#topic] }, data }, 201);
    this.#published.push({ seq: getSeq(id), data });
    return getSeq(id);
  }

  async #publishVolatile(): Promise<string> {
    this.#count += 1;
    const data = `${this.#name}:volatile:${this.#count}`;
    const event = { to: { topics: [this.#topic] }, data, volatile: true };
    await this.#ask('/v1/events', event, 201);
    return data;
  }

  async #check(stream: H2Stream, path: string, marker: string): Promise<void> {
    const found = () =>
      stream.isEnded || stream.dataByType('message').includes(marker) ? true : undefined;
    await stream.until(found, `the marker ${marker}`).catch(() => {}); // Rejects if the stream ends.
    const received = stream.dataByType('message');
    const forbidden = received.filter((data) => this.#forbidden.has(data));
    assert.deepEqual(forbidden, [], `${this.#name}: events after the removal`);
    const opening = stream.events.find(({ type }) => type === 'stream.open');
    const startAt = opening === undefined ? 0 : getSeq(opening.id);
    const expected = this.#findExpected(startAt);
    const got = this.#getTopicData(stream);
    if (!stream.isEnded) {
      assert.deepEqual(got, expected, `${this.#name}: from ${startAt}, ${this.#removedAt}`);
      stream.abort();
      return;
    }
    // It was not live when it applied the removal, so its client is told that events are missing.
    assert.equal((await stream.closing())?.code, 'behind', this.#name);
    assert.deepEqual(got, expected.slice(0, got.length), this.#name);
    if (opening === undefined) return;
    const lastEventId = stream.events.findLast(({ id }) => id !== undefined)?.id;
    const returned = await this.#pickClient().openStream(path, { 'last-event-id': lastEventId });
    assert.equal((await returned.opening()).reason, 'too_old', this.#name);
    returned.abort();
  }

  /** Returns the data of the logged events between joining and leaving, after the start of a stream. */
  #findExpected(startAt: number): string[] {
    const after = Math.max(startAt, this.#joinedAt);
    return this.#published
      .filter(({ seq }) => seq > after && seq < this.#removedAt)
      .sort((a, b) => a.seq - b.seq)
      .map(({ data }) => data);
  }

  #getTopicData(stream: H2Stream): string[] {
    const ofTopic = new Set(this.#published.map(({ data }) => data));
    return stream.dataByType('message').filter((data) => ofTopic.has(data));
  }

  /** Opens a stream from a position. It may end before its `stream.open`. */
  async #open(path: string, startAt: number): Promise<H2Stream> {
    const lastEventId = formatPosition({ epoch: this.#epoch, seq: startAt });
    return this.#pickClient().openStream(path, { 'last-event-id': lastEventId });
  }

  async #mintTicket(): Promise<string> {
    const { streamToken, id } = await this.#ask('/v1/tickets', { user: this.#user }, 200);
    this.#epoch = parsePosition(String(id))?.epoch ?? '';
    return `/stream/live/${streamToken}`;
  }

  async #ask(path: string, json: object, expectedStatus: number) {
    const { status, body, text } = await this.#pickClient().ask('POST', path, {
      bearer: this.#apiKey,
      json,
    });
    assert.equal(status, expectedStatus, text);
    return body;
  }

  #pickClient(): H2Client {
    const client = this.#clients[Math.floor(this.#random() * this.#clients.length)];
    if (client === undefined) throw new Error('there is no process');
    return client;
  }

  async #waitTurns(): Promise<void> {
    const turns = Math.floor(this.#random() * turnsMax);
    for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
  }
}

function getSeq(id: unknown): number {
  return parsePosition(String(id))?.seq ?? 0;
}

for (const dialect of allDialects) {
  test(`${dialect}: a topic reaches streams from joining to leaving, and nothing after an acknowledged removal`, {
    skip: await skipFor(dialect),
  }, async (t) => {
    const { apiKey, urls } = await (dialect === 'sqlite'
      ? startEmbedded(t)
      : startThreeProcesses(t, dialect));
    const clients = await Promise.all(urls.map((url) => H2Client.connect(url)));
    t.after(() => {
      for (const client of clients) client.destroy();
    });
    let received = 0;
    let nextRun = 0;
    const runRaces = async () => {
      while (nextRun < races.runs) {
        const run = nextRun;
        nextRun += 1;
        received += await new Race(`${run}`, apiKey, clients, randomFrom(races.seed + run)).run();
      }
    };
    await Promise.all(Array.from({ length: Math.min(concurrentRunsMax, races.runs) }, runRaces));

    assert.ok(received > 0, 'the streams received nothing at all');
  });
}
