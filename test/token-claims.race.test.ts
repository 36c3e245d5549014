import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { H2Client, type H2Stream } from './support/clients/h2-client.js';
import { skipFor } from './support/databases/new-database.js';
import type { ServerDialect } from './support/databases/test-server.js';
import { races, randomFrom } from './support/races.js';
import { clusterFor } from './support/servers/cluster.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

/** Server processes on one database, and a client's connections to them. */
interface Deployment {
  readonly clients: readonly H2Client[];
  readonly apiKey: string;
  readonly userId: string;
}

const env = {
  ...{ TRUST_PROXY_HOPS: '1', MAX_STREAMS_PER_USER: '100' },
  ...{ STREAM_OPEN_IP_RATE: '100000/1000', STREAM_TOKEN_USER_RATE: '100000/1000' },
};
/** Limit of a random delay, in iterations of the event loop. */
const turnsMax = 20;

async function startThreeProcesses(t: TestContext, dialect: ServerDialect): Promise<Deployment> {
  const { apiKey, userIds, start } = await clusterFor(t, dialect);
  const apps = [await start(env), await start(env), await start(env)];
  const clients = await Promise.all(
    apps.map(({ port }) => H2Client.connect(`https://127.0.0.1:${port}`)),
  );
  t.after(() => {
    for (const client of clients) client.destroy();
  });
  return { clients, apiKey, userId: userIds.ada };
}

async function startEmbedded(t: TestContext): Promise<Deployment> {
  const system = await startSystem(t, { env });
  const clients = [await system.connect(), await system.connect(), await system.connect()];
  return { clients, apiKey: system.apiKey, userId: system.userIds.ada };
}

/** One run with a new stream token: opens several streams at once, moves a stream, or leaks the token. */
class Race {
  readonly #name: string;
  readonly #deployment: Deployment;
  readonly #bearer: string;
  readonly #random: () => number;

  constructor(name: string, deployment: Deployment, bearer: string, random: () => number) {
    this.#name = name;
    this.#deployment = deployment;
    this.#bearer = bearer;
    this.#random = random;
  }

  async run(): Promise<void> {
    const choice = this.#random();
    if (choice < 0.5) await this.#openTogether();
    else if (choice < 0.9) await this.#move();
    else await this.#leak();
  }

  /** Opens 2 to 6 streams at once. Asserts that all but one end with `replaced`. */
  async #openTogether(): Promise<void> {
    const path = await this.#mint();
    const count = 2 + Math.floor(this.#random() * 5);
    const streams = await Promise.all(
      Array.from({ length: count }, async () => {
        await this.#waitTurns();
        return this.#pickClient().openStream(path);
      }),
    );

    await until(() => streams.filter(({ isEnded }) => isEnded).length >= count - 1);
    const data = await this.#publish();
    const remaining = streams.filter(({ isEnded }) => !isEnded);
    assert.equal(remaining.length, 1, this.#name);
    const [last] = remaining as [H2Stream]; // Safe: there is one.
    await last.until(() => last.dataByType('message').includes(data) || undefined);
    for (const stream of streams) {
      if (stream !== last) assert.equal((await stream.closing())?.code, 'replaced', this.#name);
    }
    assert.equal(last.isEnded, false, this.#name);
    last.abort();
  }

  /** Opens the stream four times, each over a random connection, and asserts that the last one stays open. */
  async #move(): Promise<void> {
    const path = await this.#mint();
    let stream: H2Stream | undefined;
    for (let moves = 0; moves < 4; moves += 1) {
      stream?.abort();
      stream = await this.#pickClient().openStream(path);
      if (this.#random() < 0.5) await this.#waitTurns();
    }
    const last = stream as H2Stream; // Safe: it was opened four times.

    const data = await this.#publish();
    await last.until(() => last.dataByType('message').includes(data) || undefined);

    assert.equal(last.isEnded, false, this.#name);
    last.abort();
  }

  /**
   * Opens streams of the token from too many addresses. Asserts that no stream receives what is published
   * after the refusal.
   */
  async #leak(): Promise<void> {
    const path = await this.#mint();
    const client = this.#pickClient();
    const streams: H2Stream[] = [await this.#pickClient().openStream(path)];
    await streams[0]?.opening();
    let status = 200;
    for (let host = 1; status === 200; host += 1) {
      const headers = { 'x-forwarded-for': `192.0.2.${host}` };
      const stream = await client.openStream(path, headers);
      status = stream.status;
      assert.ok(host < 20, 'the leak was not detected');
      if (status !== 200) break;
      streams.push(stream);
      // Either stream may claim the token last. Once the other has ended, the token has a holder.
      await until(() => streams.filter(({ isEnded }) => !isEnded).length === 1);
    }
    const data = await this.#publish();

    await Promise.all(streams.map((stream) => stream.ended()));
    const codes = await Promise.all(streams.map(async (stream) => (await stream.closing())?.code));
    assert.equal(codes.filter((code) => code === 'revoked').length, 1, this.#name);
    for (const stream of streams)
      assert.equal(stream.dataByType('message').includes(data), false, this.#name);
  }

  async #mint(): Promise<string> {
    const { status, body, text } = await this.#pickClient().ask('POST', '/stream/token', {
      bearer: this.#bearer,
    });
    assert.equal(status, 200, text);
    return `/stream/live/${body['streamToken']}`;
  }

  async #publish(): Promise<string> {
    const { apiKey, userId } = this.#deployment;
    const data = `event of ${this.#name}`;
    const json = { to: { users: [userId] }, data };
    const { status, text } = await this.#pickClient().ask('POST', '/events', {
      bearer: apiKey,
      json,
    });
    assert.equal(status, 201, text);
    return data;
  }

  #pickClient(): H2Client {
    const { clients } = this.#deployment;
    const client = clients[Math.floor(this.#random() * clients.length)];
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

  test(`${dialect}: exactly one stream of a token stays open, and none after the token is revoked`, {
    skip,
  }, async (t) => {
    const deployment = await (dialect === 'sqlite'
      ? startEmbedded(t)
      : startThreeProcesses(t, dialect));
    const bearer = await deployment.clients[0]?.accessToken('ada');
    assert.ok(bearer);

    for (let run = 0; run < races.runs; run += 1) {
      const random = randomFrom(races.seed + run);
      await new Race(`run ${run}`, deployment, bearer, random).run();
    }
  });
}
