import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { H2Client } from './support/clients/h2-client.js';
import { findServer } from './support/databases/test-server.js';
import { clusterFor } from './support/servers/cluster.js';
import { ServerProcess } from './support/servers/server-process.js';

const connectionCount = 60;
/** On a database server, all connections together send more requests at once than Herald admits to it. */
const requestsPerConnection = { sqlite: 8, postgres: 36 };

const env = {
  TRUST_PROXY_HOPS: '1',
  STREAM_OPEN_IP_RATE: '', // The default, which is higher in other tests.
};
const attacker = { 'x-forwarded-for': '192.0.2.66' };
const user = { 'x-forwarded-for': '198.51.100.1' };

type Ask = (client: H2Client) => Promise<{ readonly status: number }>;

const hex = (bytes: number) => randomBytes(bytes).toString('hex');

/** Requests without a valid credential. `endedToken` is the access token of a session that has ended. */
const floods = {
  'unknown API keys': () => (client) => {
    const bearer = `hk_${hex(8)}_${'A'.repeat(43)}`;
    return client.ask('POST', '/events', { bearer, headers: attacker });
  },
  'readiness checks': () => (client) => client.ask('GET', '/health/ready', { headers: attacker }),
  'unknown stream tokens': () => (client) =>
    client.ask('GET', `/stream/live/${hex(64)}`, { headers: attacker }),
  'access tokens of an ended session': (endedToken) => (client) =>
    client.ask('GET', '/me', { bearer: endedToken, headers: attacker }),
} satisfies Record<string, (endedToken: string) => Ask>;

/** Keeps 60 connections busy with the requests of a dialect until `stop`. */
async function startFlood(url: string, dialect: keyof typeof requestsPerConnection, ask: Ask) {
  const clients = await Promise.all(
    Array.from({ length: connectionCount }, () => H2Client.connect(url)),
  );
  const statuses = new Map<number, number>();
  let isOver = false;
  const asking = clients.flatMap((client) =>
    Array.from({ length: requestsPerConnection[dialect] }, async () => {
      while (!isOver) {
        const { status } = await ask(client);
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }
    }),
  );
  return {
    /** Number of answers by status. */
    statuses,
    async stop(): Promise<void> {
      isOver = true;
      await Promise.allSettled(asking);
      for (const client of clients) client.destroy();
    },
  };
}

/** Sends ten requests of a user and of a load balancer. */
async function askDuringFlood(client: H2Client, bearer: string) {
  const statuses = { me: new Set<number>(), ready: new Set<number>() };
  const askOnce = async () => {
    const [me, readiness] = await Promise.all([
      client.ask('GET', '/me', { bearer, headers: user }),
      client.ask('GET', '/health/ready'),
    ]);
    statuses.me.add(me.status);
    statuses.ready.add(readiness.status);
  };
  await Promise.all(Array.from({ length: 10 }, () => askOnce()));
  return { me: [...statuses.me], ready: [...statuses.ready] };
}

async function login(client: H2Client, username: 'ada' | 'bob'): Promise<string> {
  return (await client.login(username)).accessToken;
}

/** Logs in and out; returns the access token. */
async function createEndedToken(client: H2Client): Promise<string> {
  const bearer = await login(client, 'bob');
  assert.equal((await client.ask('POST', '/logout', { bearer })).status, 204);
  return bearer;
}

async function connect(t: TestContext, url: string): Promise<H2Client> {
  const client = await H2Client.connect(url);
  t.after(() => client.destroy());
  return client;
}

const served = { me: [200], ready: [200] };

test('sqlite: 60 connections without valid credentials do not prevent the requests of other clients', async (t) => {
  const server = await ServerProcess.start(t, { env });
  const client = await connect(t, server.url);
  const bearer = await login(client, 'ada');
  const endedToken = await createEndedToken(client);

  for (const what of ['unknown API keys', 'access tokens of an ended session'] as const) {
    await t.test(what, async () => {
      const createAsk = floods[what];
      const flood = await startFlood(server.url, 'sqlite', createAsk(endedToken));
      try {
        assert.deepEqual(await askDuringFlood(client, bearer), served);
      } finally {
        await flood.stop();
      }
      assert.equal(flood.statuses.has(503), false);
    });
  }
});

const postgres = await findServer('postgres');
const skip = typeof postgres === 'string' ? postgres : false;

test('postgres: 60 connections without valid credentials do not prevent the requests of other clients', {
  skip,
}, async (t) => {
  const cluster = await clusterFor(t, 'postgres');
  const [one, two] = await Promise.all([cluster.launch(env), cluster.launch(env)]);
  const [clientOfOne, clientOfTwo] = [await connect(t, one.url), await connect(t, two.url)];
  const bearer = await login(clientOfOne, 'ada');
  const endedToken = await createEndedToken(clientOfOne);

  const publishFrom = async (headers: Readonly<Record<string, string>>) => {
    const parts = { bearer: cluster.apiKey, json: { to: 'all', data: 1 }, headers };
    return (await clientOfTwo.ask('POST', '/events', parts)).status;
  };

  for (const [what, createAsk] of Object.entries(floods)) {
    await t.test(what, async () => {
      const listener = await login(clientOfOne, 'bob');
      const stream = await clientOfTwo.listenAs(listener, user);
      const flood = await startFlood(two.url, 'postgres', createAsk(endedToken));
      try {
        // At the same time, because each waits behind all requests of the flood.
        const [statuses, published, logout] = await Promise.all([
          askDuringFlood(clientOfTwo, bearer),
          publishFrom(attacker), // The API key existed when the process started.
          clientOfOne.ask('POST', '/logout', { bearer: listener }),
        ]);
        assert.deepEqual(statuses, served);
        assert.equal(published, 201);
        assert.equal(logout.status, 204);
        await stream.ended(); // The logout takes effect during the flood.
      } finally {
        await flood.stop();
      }
      assert.equal(flood.statuses.has(503), false);
    });
  }
});
