import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { type AccountParts, withAccounts } from '../src/commands/accounts.js';
import { loadConfig } from '../src/config/config.js';
import { H2Client, type H2Stream } from './support/clients/h2-client.js';
import { skipFor } from './support/databases/new-database.js';
import type { ServerDialect } from './support/databases/test-server.js';
import { races, randomFrom } from './support/races.js';
import { recordSecret } from './support/recording/record.js';
import { clusterFor } from './support/servers/cluster.js';
import { launch } from './support/servers/launch.js';
import { type Env, prepare } from './support/servers/seed.js';

/** Servers on one database. The test runs account commands in its own process. */
interface Deployment {
  readonly env: Env;
  readonly apiKey: string;
  readonly urls: readonly string[];
}

async function startThreeProcesses(t: TestContext, dialect: ServerDialect): Promise<Deployment> {
  const { env, apiKey, start } = await clusterFor(t, dialect);
  const apps = [await start(), await start(), await start()];
  return { env, apiKey, urls: apps.map(({ port }) => `https://127.0.0.1:${port}`) };
}

/** Starts a child process, because the commands of the test block this thread while the server writes. */
async function startEmbedded(t: TestContext): Promise<Deployment> {
  const { folder, env, apiKey } = await prepare();
  const server = await launch({ env, cwd: folder });
  t.after(async () => {
    await server.end('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });
  return { env, apiKey, urls: [server.url] };
}

/** The user of consecutive runs. Concurrent runs have different users. */
interface RaceUser {
  readonly username: string;
  readonly userId: string;
}

const password = 'a long password of races';
/**
 * Number of concurrent runs. It is small, because the events of one run make every process read the event
 * log, while the races of the other runs need a process that lags behind.
 */
const concurrentRunsMax = 2;
/** Limit of a random delay, in iterations of the event loop. */
const turnsMax = 40;
/** Number of events that each publisher publishes after the end is acknowledged. */
const eventsAfterEnd = 2;

/**
 * One run. It ends sessions or disconnects a user while events are published and a stream is opened. Or it
 * revokes an API key, or narrows the user prefix of a key, while the key publishes.
 */
class Race {
  readonly #name: string;
  readonly #user: RaceUser;
  readonly #admin: AccountParts;
  readonly #apiKey: string;
  readonly #clients: readonly H2Client[];
  readonly #random: () => number;
  #isEnded = false;
  #published = 0;
  /** Data of the events that were published after the end was acknowledged; no stream may receive them. */
  readonly #forbidden = new Set<string>();

  constructor(
    name: string,
    user: RaceUser,
    admin: AccountParts,
    apiKey: string,
    clients: readonly H2Client[],
    random: () => number,
  ) {
    this.#name = name;
    this.#user = user;
    this.#admin = admin;
    this.#apiKey = apiKey;
    this.#clients = clients;
    this.#random = random;
  }

  /** Returns the number of events that the stream received. */
  run(): Promise<number> {
    const choice = this.#random();
    if (choice < 0.25) return this.#revokeKey();
    return choice < 0.5 ? this.#disconnectUser() : this.#endSessions();
  }

  async #endSessions(): Promise<number> {
    const bearer = await this.#login();
    const stream = await this.#pickClient().listenAs(bearer);

    const [late] = await Promise.all([
      this.#openLate(bearer),
      this.#publishUntilEnded(),
      this.#publishUntilEnded(),
      this.#end(bearer),
    ]);

    await this.#assertNothingForbidden(stream, late);
    return stream.ids.length;
  }

  /** Disconnects a user who has two tickets, one of which is being opened. A later ticket can be opened. */
  async #disconnectUser(): Promise<number> {
    const paths = await Promise.all([this.#mintTicket(), this.#mintTicket()]);
    const stream = await this.#pickClient().openStream(paths[0]);
    await stream.opening();

    const [late] = await Promise.all([
      this.#waitTurns().then(() => this.#pickClient().openStream(paths[1])),
      this.#publishUntilEnded(),
      this.#publishUntilEnded(),
      this.#waitTurns().then(async () => {
        await this.#ask('/v1/disconnect', { user: this.#user.userId }, 200);
        this.#isEnded = true;
      }),
    ]);

    await this.#assertNothingForbidden(stream, late);
    for (const path of paths)
      assert.equal((await this.#pickClient().openStream(path)).status, 401, this.#name);
    const next = await this.#pickClient().openStream(await this.#mintTicket());
    assert.equal(await next.outcome(), 'open', this.#name);
    next.abort();
    return stream.ids.length;
  }

  async #assertNothingForbidden(...streams: readonly H2Stream[]): Promise<void> {
    await Promise.all(streams.map((stream) => stream.ended())); // Never resolves if a stream stays open.
    for (const { events } of streams) {
      const data = events.map((event) => event.data);
      assert.deepEqual(
        data.filter((item) => this.#forbidden.has(item)),
        [],
        this.#name,
      );
    }
    assert.equal(this.#forbidden.size, 2 * eventsAfterEnd);
  }

  /** Mints a ticket and returns the path of its stream. */
  async #mintTicket(): Promise<string> {
    const { streamToken } = await this.#ask('/v1/tickets', { user: this.#user.userId }, 200);
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

  /** Revokes or limits an API key during an NDJSON request whose body ends before or after that. */
  async #revokeKey(): Promise<number> {
    const stream = await this.#pickClient().listenAs(await this.#login());
    const { key, id } = await this.#admin.apiKeys.create({
      name: `race.${this.#name}`,
      scopes: ['publish'],
    });
    recordSecret(key);
    const body = new PassThrough();
    const headers = { 'content-type': 'application/x-ndjson' };
    const answering = this.#pickClient().ask('POST', '/events', { bearer: key, headers, body });
    body.write(`${JSON.stringify(this.#createEvent('line'))}\n`);
    const isRevocation = this.#random() < 0.5;
    let wasRevokedBefore = false;

    await Promise.all([
      this.#waitTurns().then(async () => {
        const { apiKeys } = this.#admin;
        await (isRevocation ? apiKeys.revoke(id) : apiKeys.change(id, { userPrefix: 'shop:' }));
        this.#isEnded = true;
      }),
      this.#waitTurns().then(() => {
        wasRevokedBefore = this.#isEnded;
        body.end(`${JSON.stringify(this.#createEvent('last line'))}\n`);
      }),
    ]);

    const { status, body: answer } = await answering;
    const info = (answer['info'] ?? {}) as Readonly<Record<string, unknown>>;
    const published = status === 201 ? answer['published'] : (info['published'] ?? 0);
    const marker = await this.#publish();
    await stream.until(() => stream.dataByType('message').includes(marker) || undefined);
    const lines = ['line', 'last line'];
    const arrived = lines.filter((line) => stream.dataByType('message').includes(line));
    assert.deepEqual(arrived, lines.slice(0, Number(published)), this.#name);
    assert.equal(arrived.length === 2, status === 201, this.#name);
    // 403 if the key was limited before the request was authenticated.
    const refusals = isRevocation ? [401] : [503, 403];
    if (wasRevokedBefore) assert.ok(refusals.includes(status), `${this.#name}: ${status}`);
    stream.abort();
    return stream.ids.length;
  }

  /** Ends the session by a new password, by disabling the user or by a logout, and sets `#isEnded`. */
  async #end(bearer: string): Promise<void> {
    await this.#waitTurns();
    const { accounts } = this.#admin;
    const { username } = this.#user;
    const choice = Math.floor(this.#random() * 4);
    if (choice === 0) await accounts.setPassword(username, password);
    else if (choice === 1) await accounts.disable(username);
    else {
      const json = { scope: choice === 2 ? 'session' : 'all' };
      const { status, text } = await this.#pickClient().ask('POST', '/logout', { bearer, json });
      assert.equal(status, 204, text);
    }
    this.#isEnded = true;
    if (choice === 1) await accounts.enable(username);
  }

  async #openLate(bearer: string) {
    await this.#waitTurns();
    return this.#pickClient().openStream('/stream/live', { authorization: `Bearer ${bearer}` });
  }

  async #publishUntilEnded(): Promise<void> {
    for (let after = 0; after < eventsAfterEnd; ) {
      const isForbidden = this.#isEnded;
      const data = await this.#publish({ volatile: this.#random() < 0.2 });
      if (!isForbidden) continue;
      this.#forbidden.add(data);
      after += 1;
    }
  }

  /** Publishes an event to the user and returns its data. */
  async #publish(extraFields: object = {}): Promise<string> {
    this.#published += 1;
    const data = `${this.#name}:${this.#published}`;
    const json = { ...this.#createEvent(data), ...extraFields };
    await this.#ask('/events', json, 201);
    return data;
  }

  #createEvent(data: string) {
    return { to: { users: [this.#user.userId] }, data };
  }

  async #login(): Promise<string> {
    const json = { username: this.#user.username, password };
    const { status, body, text } = await this.#pickClient().ask('POST', '/login', { json });
    assert.equal(status, 200, text);
    return String(body['accessToken']);
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

for (const dialect of ['sqlite', 'postgres', 'mariadb', 'mysql'] as const) {
  const skip = await skipFor(dialect);

  test(`${dialect}: an event published after the acknowledged end of a session, user or API key is not delivered`, {
    skip,
  }, async (t) => {
    const { env, apiKey, urls } = await (dialect === 'sqlite'
      ? startEmbedded(t)
      : startThreeProcesses(t, dialect));
    const clients = await Promise.all(urls.map((url) => H2Client.connect(url)));
    t.after(() => {
      for (const client of clients) client.destroy();
    });
    let received = 0;
    let nextRun = 0;
    await withAccounts(loadConfig(env), async (admin) => {
      const runRaces = async (index: number) => {
        const username = `racer${index}`;
        const names = { username, firstName: 'R', lastName: 'R' };
        const { id: userId } = await admin.accounts.create({ ...names, password });
        while (nextRun < races.runs) {
          const run = nextRun;
          nextRun += 1;
          const random = randomFrom(races.seed + run);
          const race = new Race(`${run}`, { username, userId }, admin, apiKey, clients, random);
          received += await race.run();
        }
      };
      await Promise.all(
        Array.from({ length: Math.min(concurrentRunsMax, races.runs) }, (_, index) =>
          runRaces(index),
        ),
      );
    });

    assert.ok(received > 0, 'the streams received nothing at all');
  });
}
