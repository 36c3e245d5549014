import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { H2Client, type H2Stream } from './support/clients/h2-client.js';
import { skipFor } from './support/databases/new-database.js';
import type { ServerDialect } from './support/databases/test-server.js';
import { openHoldingProxy } from './support/holding-proxy.js';
import { clusterFor } from './support/servers/cluster.js';
import { openTcpProxy } from './support/tcp-proxy.js';
import { until } from './support/until.js';

/** Starts two processes, and returns how an event is published through one and received from a stream. */
async function startTwo(t: TestContext, dialect: ServerDialect) {
  const { apiKey, userIds, launch } = await clusterFor(t, dialect);
  const [one, two] = [await launch(), await launch()];
  const connect = async (port: number) => {
    const client = await H2Client.connect(`https://127.0.0.1:${port}`);
    t.after(() => client.destroy());
    return client;
  };
  const publishThrough = async (client: H2Client, data: string) => {
    const json = { to: { users: [userIds.ada] }, data };
    const { status, text } = await client.ask('POST', '/events', { bearer: apiKey, json });
    assert.equal(status, 201, text);
  };
  return { one, two, connect, publishThrough };
}

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const skip = await skipFor(dialect);

  test(`${dialect}: an open whose client has gone does not take the token of its newer stream`, {
    skip,
  }, async (t) => {
    const { one, two, connect, publishThrough } = await startTwo(t, dialect);
    const proxy = await openHoldingProxy(t, Number(new URL(one.url).port));
    const [away, here] = [await connect(proxy.port), await connect(Number(new URL(two.url).port))];
    const path = await away.streamPath('ada');
    await away.ask('GET', '/health/live');

    proxy.hold();
    const opening = away.openStream(path); // Arrives late.
    await until(() => proxy.held === 1);
    const newer = await here.openStream(path);
    await newer.opening();
    await publishThrough(here, 'to the newer stream');
    await newer.until(
      () => newer.dataByType('message').includes('to the newer stream') || undefined,
    );
    proxy.forward(1);
    const older = await opening;
    await older.opening(); // The process does not know that its client has left.
    older.abort();
    await until(() => proxy.held >= 1); // The reset, and the answer to a PING.
    await publishThrough(here, 'meanwhile');
    await newer.until(() => newer.dataByType('message').includes('meanwhile') || undefined);
    proxy.release();
    await away.ask('GET', '/health/live'); // The process has handled the reset.
    await publishThrough(away, 'afterwards');
    await newer.until(() => newer.dataByType('message').includes('afterwards') || undefined);

    assert.equal(newer.isEnded, false);
  });

  test(`${dialect}: a process that was stopped does not take the token of a client that moved meanwhile`, {
    skip,
  }, async (t) => {
    const { one, two, connect, publishThrough } = await startTwo(t, dialect);
    const [away, here] = [
      await connect(Number(new URL(one.url).port)),
      await connect(Number(new URL(two.url).port)),
    ];
    const path = await here.streamPath('ada');

    process.kill(one.pid, 'SIGSTOP');
    const abandoned = away.request('GET', path);
    abandoned.on('error', () => {});
    await new Promise(setImmediate); // The request is sent before it is reset.
    abandoned.close(8);
    const newer = await here.openStream(path);
    await newer.opening();
    process.kill(one.pid, 'SIGCONT');
    await away.ask('GET', '/health/live');
    await publishThrough(away, 'afterwards');
    await newer.until(() => newer.dataByType('message').includes('afterwards') || undefined);

    assert.equal(newer.isEnded, false);
  });

  test(`${dialect}: when the answers to claims are lost, exactly one stream of a token is left`, {
    skip,
  }, async (t) => {
    const { apiKey, userIds, env, start } = await clusterFor(t, dialect);
    const target = { host: env['DB_HOST'] ?? '', port: Number(env['DB_PORT']) };
    const proxy = await openTcpProxy(target);
    const apps = [
      await start({ DB_HOST: '127.0.0.1', DB_PORT: String(proxy.port) }),
      await start(),
    ];
    t.after(() => proxy.close()); // After the processes have closed.
    const clients: H2Client[] = [];
    for (const { port } of apps) {
      const client = await H2Client.connect(`https://127.0.0.1:${port}`);
      t.after(() => client.destroy());
      clients.push(client);
    }
    const [cut, whole] = clients as [H2Client, H2Client]; // Safe: there are two.

    for (let round = 0; round < 10; round += 1) {
      const path = await whole.streamPath('ada');
      await until(async () => (await cut.ask('GET', '/health/ready')).status === 200);
      const streams = await Promise.all([cut, whole, cut].map((client) => client.openStream(path)));
      for (let turn = 0; turn < round; turn += 1) await new Promise(setImmediate);
      proxy.cut(); // The claims of the first process are on their way, sent or answered.

      await until(() => streams.filter(({ isEnded }) => isEnded).length >= 2);
      const json = { to: { users: [userIds.ada] }, data: `round ${round}` };
      await whole.ask('POST', '/events', { bearer: apiKey, json });
      const remaining = streams.filter(({ isEnded }) => !isEnded);
      assert.equal(remaining.length, 1, `round ${round}`);
      const [last] = remaining as [H2Stream]; // Safe: there is one.
      await last.until(() => last.dataByType('message').includes(`round ${round}`) || undefined);
      last.abort();
    }
  });

  test(`${dialect}: a leaked token is revoked in every process`, { skip }, async (t) => {
    const { apiKey, userIds, start } = await clusterFor(t, dialect);
    const env = { TRUST_PROXY_HOPS: '1' };
    const clients: H2Client[] = [];
    for (const { port } of [await start(env), await start(env)]) {
      const client = await H2Client.connect(`https://127.0.0.1:${port}`);
      t.after(() => client.destroy());
      clients.push(client);
    }
    const [here, there] = clients as [H2Client, H2Client]; // Safe: there are two.
    const path = await here.streamPath('ada');
    let status = 200;
    for (let host = 1; host <= 6; host += 1) {
      const opened = await here.openStream(path, { 'x-forwarded-for': `192.0.2.${host}` });
      await opened.opening();
      const other = await there.openStream(path, { 'x-forwarded-for': '192.0.2.99' });
      await until(() => opened.isEnded || other.isEnded); // Either may claim the token last.
      if (host < 6) continue;

      status = (await here.openStream(path, { 'x-forwarded-for': '192.0.2.7' })).status;
      const json = { to: { users: [userIds.ada] }, data: 'after the refusal' };
      await here.ask('POST', '/events', { bearer: apiKey, json });

      const codes = [await opened.closing(), await other.closing()].map((closing) => closing?.code);
      assert.deepEqual(codes.toSorted(), ['replaced', 'revoked']);
      for (const stream of [opened, other]) assert.deepEqual(stream.dataByType('message'), []);
    }
    assert.equal(status, 401);
  });
}
