import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { H2Client, type H2Stream } from './support/clients/h2-client.js';
import { fields, flag, frame, headers, RawH2, type } from './support/clients/raw-h2.js';
import { skipFor } from './support/databases/new-database.js';
import type { ServerDialect } from './support/databases/test-server.js';
import { openHoldingProxy } from './support/holding-proxy.js';
import { clusterFor } from './support/servers/cluster.js';
import { startSystem } from './support/servers/system.js';
import { openTcpProxy } from './support/tcp-proxy.js';
import { until } from './support/until.js';

/** Starts two server processes; returns functions that connect to one of them and publish through it. */
async function startTwoProcesses(t: TestContext, dialect: ServerDialect) {
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

test('with a token that another stream holds, a client receives no events until it answers a PING', async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const path = await client.streamPath('ada');
  const owner = await client.openStream(path);
  await owner.opening();
  const thief = await RawH2.open(system.app.port, { pings: false });
  system.onClose(() => thief.destroy()); // The server would wait for it when it closes.

  thief.send(headers(1, fields('GET', path, [['accept', 'text/event-stream']])));
  await thief.frame((one) => one.type === type.data);
  const ping = await thief.frame((one) => one.type === type.ping);
  const first = await system.publish('ada', 'first');
  await owner.until(() => owner.ids.at(-1) === first || undefined);
  assert.match(thief.readData(1).toString(), /stream\.open/);
  assert.doesNotMatch(thief.readData(1).toString(), /first/);
  assert.equal(owner.isEnded, false);

  thief.send(frame(type.ping, flag.ack, 0, ping?.payload));
  await owner.ended();
  await system.publish('ada', 'second');
  await until(() => thief.readData(1).includes('second'));
  assert.equal((await owner.closing())?.code, 'replaced');
  assert.match(thief.readData(1).toString(), /first[\s\S]*second/);
});

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const skip = await skipFor(dialect);

  test(`${dialect}: a stream request that arrives after its client has left does not replace a newer stream of the token`, {
    skip,
  }, async (t) => {
    const { one, two, connect, publishThrough } = await startTwoProcesses(t, dialect);
    const proxy = await openHoldingProxy(t, Number(new URL(one.url).port));
    const delayed = await connect(proxy.port);
    const direct = await connect(Number(new URL(two.url).port));
    const path = await delayed.streamPath('ada');
    await delayed.ask('GET', '/health/live');

    proxy.hold();
    const opening = delayed.openStream(path); // Arrives late.
    await until(() => proxy.heldChunks === 1);
    const newer = await direct.openStream(path);
    await newer.opening();
    await publishThrough(direct, 'to the newer stream');
    await newer.until(
      () => newer.dataByType('message').includes('to the newer stream') || undefined,
    );
    proxy.forward(1);
    const older = await opening;
    await older.opening();
    older.abort(); // The proxy holds the reset, so the process does not know that its client has left.
    await until(() => proxy.heldChunks >= 1); // The reset, or the answer to the PING before the claim.
    await publishThrough(direct, 'meanwhile');
    await newer.until(() => newer.dataByType('message').includes('meanwhile') || undefined);
    proxy.release();
    await delayed.ask('GET', '/health/live'); // The process has handled the reset.
    await publishThrough(delayed, 'afterwards');
    await newer.until(() => newer.dataByType('message').includes('afterwards') || undefined);

    assert.equal(newer.isEnded, false);
  });

  test(`${dialect}: after a suspension, a process does not claim the token of a client that has moved to another process`, {
    skip,
  }, async (t) => {
    const { one, two, connect, publishThrough } = await startTwoProcesses(t, dialect);
    const suspended = await connect(Number(new URL(one.url).port));
    const running = await connect(Number(new URL(two.url).port));
    const path = await running.streamPath('ada');

    process.kill(one.pid, 'SIGSTOP');
    const abandoned = suspended.request('GET', path);
    abandoned.on('error', () => {});
    await new Promise(setImmediate); // The request is sent before it is reset.
    abandoned.close(8); // CANCEL
    const newer = await running.openStream(path);
    await newer.opening();
    process.kill(one.pid, 'SIGCONT');
    await suspended.ask('GET', '/health/live');
    await publishThrough(suspended, 'afterwards');
    await newer.until(() => newer.dataByType('message').includes('afterwards') || undefined);

    assert.equal(newer.isEnded, false);
  });

  test(`${dialect}: when replies of the database to claims are lost, exactly one stream of a token stays open`, {
    skip,
  }, async (t) => {
    const { apiKey, userIds, env, start } = await clusterFor(t, dialect);
    const target = { host: env['DB_HOST'] ?? '', port: Number(env['DB_PORT']) };
    const proxy = await openTcpProxy(target);
    const apps = [
      await start({ DB_HOST: '127.0.0.1', DB_PORT: String(proxy.port) }),
      await start(),
    ];
    t.after(() => proxy.close()); // Runs after the processes have closed.
    const clients: H2Client[] = [];
    for (const { port } of apps) {
      const client = await H2Client.connect(`https://127.0.0.1:${port}`);
      t.after(() => client.destroy());
      clients.push(client);
    }
    const [interrupted, direct] = clients as [H2Client, H2Client]; // Safe: there are two.

    for (let round = 0; round < 10; round += 1) {
      const path = await direct.streamPath('ada');
      await until(async () => (await interrupted.ask('GET', '/health/ready')).status === 200);
      const streams = await Promise.all(
        [interrupted, direct, interrupted].map((client) => client.openStream(path)),
      );
      for (let turn = 0; turn < round; turn += 1) await new Promise(setImmediate);
      proxy.cut(); // Claims of the first process may be unsent, sent or answered.

      await until(() => streams.filter(({ isEnded }) => isEnded).length >= 2);
      const json = { to: { users: [userIds.ada] }, data: `round ${round}` };
      await direct.ask('POST', '/events', { bearer: apiKey, json });
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
      await until(() => opened.isEnded || other.isEnded); // Either stream may claim the token last.
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
