import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { withAccounts } from '../src/commands/accounts.js';
import { loadConfig } from '../src/config/config.js';
import { H2Client } from './support/clients/h2-client.js';
import { recordSecret } from './support/recording/record.js';
import { type LogLine, launch } from './support/servers/launch.js';
import { getPassword, prepare } from './support/servers/seed.js';
import { until } from './support/until.js';

const skip = process.platform === 'linux' ? false : 'this system has no /proc';

const lowered = 'MAX_CONNECTIONS exceeds the limit of open files and is lowered';
const low = 'open files reach their limit, connections may be dropped';
const ended = 'open files are below their limit again';

/** A module that opens files until the limit on SIGUSR2, and closes them on SIGWINCH. */
const fillFiles = `
  const { closeSync, openSync } = require('node:fs');
  const opened = [];
  process.on('SIGUSR2', () => {
    try {
      for (;;) opened.push(openSync('/dev/null'));
    } catch {}
  });
  process.on('SIGWINCH', () => {
    for (const fd of opened.splice(0)) closeSync(fd);
  });
`;

/** Starts Herald with a limit of 250 open files, and a client that is connected. */
async function startLimited(t: TestContext, tls: 'on' | 'off') {
  const { folder, env: prepared } = await prepare();
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const env = { ...prepared, TLS: tls, HANDSHAKE_TIMEOUT: '600000', IDLE_TIMEOUT: '600000' };
  const { key } = await withAccounts(loadConfig(env), ({ apiKeys }) =>
    apiKeys.create({ name: 'metrics', scopes: ['metrics'] }),
  );
  recordSecret(key);
  const fill = join(folder, 'fill.cjs');
  writeFileSync(fill, fillFiles);
  const lines: LogLine[] = [];
  const server = await launch({
    ...{ env, cwd: folder, nodeOptions: ['--require', fill] },
    wrapper: ['bash', '-c', 'ulimit -n 250; exec "$0" "$@"'],
    onLine: (line) => lines.push(line),
  });
  t.after(() => server.end('SIGKILL'));
  const client = await H2Client.connect(server.url);
  t.after(() => client.destroy());
  return {
    ...{ server, client },
    find: (message: string) => lines.filter(({ msg }) => msg === message),
    async metric(name: string) {
      const { text } = await client.ask('GET', '/metrics', { bearer: key });
      const line = text.split('\n').find((one) => one.startsWith(`${name} `));
      return Number(line?.split(' ')[1]);
    },
  };
}

/** Opens TCP connections one after the other. Returns the open connections, and the number of closed ones. */
async function openMany(t: TestContext, port: number, count: number) {
  const open = new Set<Socket>();
  t.after(() => {
    for (const socket of open) socket.destroy();
  });
  let closed = 0;
  for (let index = 0; index < count; index += 1) {
    const socket = connect(port, '127.0.0.1');
    open.add(socket);
    socket.on('error', () => {});
    socket.on('data', () => {}); // Without a reader, the end of the connection is not noticed.
    socket.on('close', () => {
      closed += 1;
      open.delete(socket);
    });
    await new Promise((resolve) => socket.once('connect', resolve).once('close', resolve));
  }
  return { open, closed: () => closed };
}

// These tests wait for checks that come every 10 s, so they run at the same time.
describe('the limit of open files', { concurrency: true }, () => {
  for (const tls of ['on', 'off'] as const) {
    test(`connections beyond the limit of open files are refused, logged and counted, and others work (TLS=${tls})`, {
      skip,
    }, async (t) => {
      const { server, client, find, metric } = await startLimited(t, tls);
      const connectionsMax = Number(find(lowered)[0]?.['connectionsMax']);
      assert.ok(connectionsMax > 10 && connectionsMax < 250, String(connectionsMax));

      const { open, closed } = await openMany(t, server.port, connectionsMax + 9);
      await until(() => closed() === 10); // 9 connections over the limit, and the connection of `client`.

      assert.equal(await metric('herald_connections_refused_total'), 10);
      assert.equal(await metric('herald_connections'), connectionsMax);
      assert.ok((await metric('process_open_fds')) <= (await metric('process_max_fds')) - 32);
      const json = { username: 'ada', password: getPassword('ada') };
      assert.equal((await client.ask('POST', '/login', { json })).status, 200);
      await until(() => find('connections refused').length > 0);
      assert.deepEqual(find('connections refused')[0]?.['refused'], { MAX_CONNECTIONS: 10 });
      assert.deepEqual(find(low), []);

      for (const socket of open) socket.destroy();
      await until(async () => (await metric('herald_connections')) === 1);
      const another = await H2Client.connect(server.url);
      t.after(() => another.destroy());
      assert.equal((await another.ask('GET', '/health/live')).status, 200);
    });
  }

  test('open files other than connections are logged when they reach the limit, and when they no longer do', {
    skip,
  }, async (t) => {
    const { server, find } = await startLimited(t, 'on');

    server.signal('SIGUSR2');
    await until(() => find(low).length > 0);
    server.signal('SIGWINCH');
    await until(() => find(ended).length > 0);

    assert.equal(find(low)[0]?.['max'], 250);
    assert.equal(find(low).length, 1);
  });
});
