import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startSource, tempFolder, waitForExit } from './support/servers/process.js';
import { until } from './support/until.js';

/** Starts a server process whose startup never completes, because its database server never replies. */
async function startStuckServer(t: TestContext) {
  const sockets: Socket[] = [];
  const database = createServer((socket) => {
    sockets.push(socket.on('error', () => {}));
  });
  t.after(() => {
    database.close();
    for (const socket of sockets) socket.destroy();
  });
  database.listen(0, '127.0.0.1');
  await once(database, 'listening');
  const cwd = tempFolder(t);
  const env = {
    PORT: '0',
    DB_DIALECT: 'postgres',
    DB_PORT: String((database.address() as AddressInfo).port), // Safe: `database` listens on TCP.
    DB_CONNECT_TIMEOUT: '600000', // Longer than any test, so that only a signal ends this startup.
  };
  const child = startSource('server.ts', [], { cwd, env });
  t.after(() => child.kill('SIGKILL'));
  const ending = waitForExit(child);
  await Promise.race([once(database, 'connection'), ending]);
  return { child, ending, cwd };
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} during startup ends the process at once with exit code 0`, async (t) => {
    const { child, ending } = await startStuckServer(t);

    child.kill(signal);
    const { code, out, err } = await ending;

    assert.equal(code, 0, err);
    assert.match(out, new RegExp(`"signal":"${signal}","msg":"stopped during startup"`));
    assert.equal(err, '');
  });
}

test('SIGHUP during startup reopens the log files and startup continues', async (t) => {
  const { child, ending, cwd } = await startStuckServer(t);
  const file = join(cwd, 'logs', 'combined.log');
  renameSync(file, `${file}.1`);

  child.kill('SIGHUP');
  await until(() => existsSync(file) || child.exitCode !== null || child.signalCode !== null);

  assert.equal(child.signalCode, null);
  assert.ok(existsSync(file));
  child.kill('SIGTERM');
  assert.equal((await ending).code, 0);
});

test('SIGUSR1 is ignored and logged, and does not open the port of the debugger', async (t) => {
  const { child, ending, cwd } = await startStuckServer(t);
  const file = join(cwd, 'logs', 'combined.log');

  child.kill('SIGUSR1');
  await until(() => /"signal":"SIGUSR1","msg":"signal ignored, /.test(readFileSync(file, 'utf8')));
  child.kill('SIGTERM');
  const { code, err } = await ending;

  assert.equal(code, 0);
  assert.equal(err, ''); // Node would print the address of the debugger.
});
