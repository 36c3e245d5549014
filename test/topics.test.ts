import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import type { Dialect } from '../src/db/database.js';
import { H2Client, type H2Stream } from './support/clients/h2-client.js';
import { allDialects } from './support/databases/dialects.js';
import { skipFor } from './support/databases/new-database.js';
import { freePort } from './support/free-port.js';
import { clusterFor } from './support/servers/cluster.js';
import { launch, type ServerHandle } from './support/servers/launch.js';
import { type Env, prepare } from './support/servers/seed.js';
import { startSystem } from './support/servers/system.js';

/** The backend of an application, and clients of its users. */
class Application {
  readonly #apiKey: string;
  /** One per process. Requests take turns. */
  readonly #clients: readonly H2Client[];
  #requests = 0;

  constructor(apiKey: string, clients: readonly H2Client[]) {
    this.#apiKey = apiKey;
    this.#clients = clients;
  }

  get client(): H2Client {
    this.#requests += 1;
    return this.#clients[this.#requests % this.#clients.length] as H2Client; // Safe: there is one.
  }

  async post(path: string, json: object, status = 200): Promise<Readonly<Record<string, unknown>>> {
    const answer = await this.client.ask('POST', path, { bearer: this.#apiKey, json });
    assert.equal(answer.status, status, answer.text);
    return answer.body;
  }

  async get(path: string): Promise<Readonly<Record<string, unknown>>> {
    const answer = await this.client.ask('GET', path, { bearer: this.#apiKey });
    assert.equal(answer.status, 200, answer.text);
    return answer.body;
  }

  /** Publishes an event and returns its id. */
  async publish(data: string, to: object = { topics: ['orders:17'] }): Promise<string> {
    return String((await this.post('/v1/events', { to, data }, 201))['id']);
  }

  /** Changes the members of `orders:17` and returns the position of the change. */
  async members(change: { readonly add?: readonly string[]; readonly remove?: readonly string[] }) {
    const { id } = await this.post('/v1/topics/members', { topic: 'orders:17', ...change });
    return String(id);
  }

  /** Returns the path of the stream of a new ticket. */
  async mint(user: string): Promise<string> {
    const { streamToken } = await this.post('/v1/tickets', { user });
    return `/stream/live/${streamToken}`;
  }

  async open(path: string, lastEventId?: string): Promise<H2Stream> {
    const headers = lastEventId === undefined ? {} : { 'last-event-id': lastEventId };
    const stream = await this.client.openStream(path, headers);
    await stream.opening();
    return stream;
  }

  /** Publishes an event to a user, and waits until a stream of the user has received it. */
  async marker(stream: H2Stream, user: string): Promise<void> {
    const id = await this.publish('marker', { users: [user] });
    await stream.until(() => stream.ids.includes(id) || undefined, 'the marker');
  }
}

/** Starts two processes on a database server, or one with an embedded database. */
async function startApplication(t: TestContext, dialect: Dialect): Promise<Application> {
  if (dialect === 'sqlite') {
    const system = await startSystem(t);
    return new Application(system.apiKey, [await system.connect()]);
  }
  const { apiKey, start } = await clusterFor(t, dialect);
  const clients: H2Client[] = [];
  for (const { port } of [await start(), await start()]) {
    const client = await H2Client.connect(`https://127.0.0.1:${port}`);
    t.after(() => client.destroy());
    clients.push(client);
  }
  return new Application(apiKey, clients);
}

function messages(stream: H2Stream): string[] {
  return stream.dataByType('message').filter((data) => data !== 'marker');
}

function topicChanges(stream: H2Stream) {
  return stream.events
    .filter(({ type }) => type === 'stream.topics')
    .map(({ id, data }) => ({ sseId: id, ...JSON.parse(data) }));
}

for (const dialect of allDialects) {
  const skip = await skipFor(dialect);

  test(`${dialect}: streams receive a topic from joining to leaving, and nothing follows`, {
    skip,
  }, async (t) => {
    const app = await startApplication(t, dialect);
    const paths = [await app.mint('a'), await app.mint('a'), await app.mint('b')];
    const streams = await Promise.all(paths.map((path) => app.open(path)));
    const [first, second, other] = streams as [H2Stream, H2Stream, H2Stream];
    for (const stream of [first, second]) await app.marker(stream, 'a');

    await app.publish('before');
    const joined = await app.members({ add: ['a'] });
    const between = await app.publish('between');
    await app.publish('other topic', { topics: ['Orders:17'] });
    const left = await app.members({ remove: ['a'] });
    for (let count = 0; count < 2; count += 1) await app.publish('after');

    for (const stream of [first, second]) {
      await app.marker(stream, 'a');
      assert.deepEqual(messages(stream), ['between']);
      assert.deepEqual(topicChanges(stream), [
        { sseId: joined, added: ['orders:17'], removed: [], id: joined },
        { sseId: left, added: [], removed: ['orders:17'], id: left },
      ]);
    }
    await app.marker(other, 'b');
    assert.deepEqual([messages(other), topicChanges(other)], [[], []]);
    for (const stream of streams) stream.abort();

    for (const [id, reason] of [
      [between, 'too_old'],
      [left, 'resumed'],
    ] as const) {
      const returned = await app.open(paths[0] ?? '', id);
      assert.equal((await returned.opening()).reason, reason);
      await app.marker(returned, 'a');
      assert.deepEqual(messages(returned), []);
      returned.abort();
    }
  });

  test(`${dialect}: a client that was away receives the topics that it joined, and is told of those that it lost`, {
    skip,
  }, async (t) => {
    const app = await startApplication(t, dialect);
    const path = await app.mint('a');
    const before = await app.publish('before');
    const joined = await app.members({ add: ['a'] });
    await app.publish('missed');

    const returned = await app.open(path, before);
    assert.equal((await returned.opening()).reason, 'resumed');
    const { memberships } = JSON.parse(returned.events[0]?.data ?? '{}');
    assert.equal(memberships, 1);
    await app.marker(returned, 'a');
    assert.deepEqual(messages(returned), ['missed']);
    returned.abort();

    await app.members({ remove: ['a'] });
    await app.members({ add: ['a'] });
    const again = await app.publish('again');
    for (const lastEventId of [joined, undefined]) {
      const stream = await app.open(path, lastEventId);
      const { resumed, reason, id } = await stream.opening();
      assert.deepEqual({ resumed, reason, id }, { resumed: false, reason: 'too_old', id });
      await app.marker(stream, 'a');
      assert.deepEqual(messages(stream), []); // Not even what it could have: it reloads its state.
      await app.publish('new');
      await stream.until(() => messages(stream).includes('new') || undefined);
      stream.abort();
    }
    const current = await app.open(path, again);
    assert.equal((await current.opening()).reason, 'resumed');
    current.abort();
  });

  test(`${dialect}: a revocation ends memberships, and a member who is added later receives only later events`, {
    skip,
  }, async (t) => {
    const app = await startApplication(t, dialect);
    const stream = await app.open(await app.mint('a'));
    await app.members({ add: ['a', 'b'] });
    await app.publish('first');

    const { id } = await app.post('/v1/topics/revoke', { topic: 'orders:17', users: ['a'] });
    await app.publish('second');
    const joined = await app.members({ add: ['a'] });
    await app.publish('third');

    await app.marker(stream, 'a');
    assert.deepEqual(messages(stream), ['first', 'third']);
    assert.deepEqual(topicChanges(stream).at(-2)?.id, id);
    const { items } = await app.get('/v1/topics/members?topic=orders:17');
    assert.deepEqual(
      (items as readonly { user: string; after: string }[]).map(({ user, after }) => [user, after]),
      [
        ['a', joined],
        ['b', String(joined).replace(/\d+$/, (seq) => String(Number(seq) - 4))],
      ],
    );
    stream.abort();
  });

  test(`${dialect}: an event for a user and topics of the user arrives once`, {
    skip,
  }, async (t) => {
    const app = await startApplication(t, dialect);
    const path = await app.mint('a');
    await app.members({ add: ['a'] });
    await app.post('/v1/topics/members', { topic: 'news', add: ['a'] });
    const live = await app.open(path);
    await app.marker(live, 'a');

    await app.publish('once', { users: ['a', 'b'], topics: ['orders:17', 'news', 'x'] });
    await app.marker(live, 'a');
    assert.deepEqual(messages(live), ['once']);
    live.abort();

    const replayed = await app.open(path);
    await app.marker(replayed, 'a');
    assert.deepEqual(messages(replayed), ['once']);
    replayed.abort();
  });

  test(`${dialect}: a change of members that was answered survives kill -9, and one that was not is made or not`, {
    skip,
  }, async (t) => {
    const { env, apiKey, folder } = await prepareProcess(t, dialect);
    const processes: ServerHandle[] = [];
    t.after(() => Promise.all(processes.map((child) => child.end('SIGKILL'))));
    const start = async () => {
      const child = await launch({ env, cwd: folder });
      processes.push(child);
      const client = await H2Client.connect(child.url);
      t.after(() => client.destroy());
      return { child, client, app: new Application(apiKey, [client]) };
    };
    const first = await start();
    const path = await first.app.mint('a');
    const joined = await first.app.members({ add: ['a'] });
    await first.app.publish('first');
    const json = { topic: 'orders:17', remove: ['a'] };
    const removing = first.client
      .ask('POST', '/v1/topics/members', { bearer: apiKey, json })
      .then(({ status }) => status === 200)
      .catch(() => false); // The process was killed before its answer.
    await new Promise(setImmediate);
    await first.child.end('SIGKILL');
    const isAnswered = await removing;

    const { app } = await start();
    const { items } = await app.get('/v1/topics/members?topic=orders:17');
    const isMember = (items as readonly unknown[]).length === 1;
    const stream = await app.open(path, joined);
    const { reason } = await stream.opening();
    await app.publish('second');
    await app.marker(stream, 'a');

    assert.equal(isMember && isAnswered, false);
    assert.deepEqual(
      { reason, data: messages(stream) },
      isMember ? { reason: 'resumed', data: ['first', 'second'] } : { reason: 'too_old', data: [] },
    );
    stream.abort();
  });
}

async function prepareProcess(
  t: TestContext,
  dialect: Dialect,
): Promise<{ env: Env; apiKey: string; folder: string }> {
  const port = String(await freePort());
  if (dialect === 'sqlite') {
    const { env, apiKey, folder } = await prepare({ PORT: port });
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    return { env, apiKey, folder };
  }
  const { env, apiKey } = await clusterFor(t, dialect);
  return { env: { ...env, PORT: port }, apiKey, folder: env['DATA_DIR'] ?? '' };
}
