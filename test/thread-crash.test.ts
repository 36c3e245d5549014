import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { waitForLogLine } from './support/recording/wait-for-log.js';
import { tempFolder } from './support/servers/process.js';
import { ServerProcess } from './support/servers/server-process.js';

/** A module that every thread loads. It ends the hashing thread that gets the password `throw` or `exit`. */
const crashScript = `
  const { parentPort, workerData } = require('node:worker_threads');
  const crashes = { throw: () => { throw new Error('a defect') }, exit: () => process.exit(7) };
  if (workerData?.signingKey !== undefined) {
    parentPort.on('message', ({ input }) => {
      const crash = crashes[input?.password];
      if (crash) setImmediate(crash); // Runs after all other listeners, so hashing has started.
    });
  }
`;

/** Makes a hash take some tenths of a second, so that it is not finished when its thread ends. */
const slowHashEnv = { ARGON2_MEMORY_KIB: '65536', ARGON2_TIME: '3', AUTH_WORKERS: '1' };

for (const [password, what] of [
  ['throw', 'throws an error'],
  ['exit', 'exits'],
] as const) {
  test(`the server keeps running when a hashing thread ${what}`, async (t) => {
    const file = join(tempFolder(t), 'crash.cjs');
    writeFileSync(file, crashScript);
    const env = { ...slowHashEnv, NODE_OPTIONS: `--require ${file}` };
    const server = await ServerProcess.start(t, { env });
    const client = await server.connect();
    const stream = await client.listen('bob');

    const json = { username: 'nobody', password };
    const refused = await client.ask('POST', '/login', { json });
    const { accessToken: bearer } = await client.login('ada');

    assert.equal(refused.status, 503);
    assert.equal(refused.body['name'], 'service_unavailable');
    assert.match(refused.headers['retry-after'] ?? '', /^[1-9]/);
    assert.equal((await client.ask('GET', '/me', { bearer })).status, 200);
    assert.equal(stream.isEnded, false);
    await waitForLogLine(server.lines, { msg: 'worker thread exited' });
    await waitForLogLine(server.lines, { msg: 'worker thread replaced' });
    assert.equal(await server.end('SIGTERM'), 0);
  });
}

test('the server shuts down cleanly while a thread that threw an error waits for its hash to finish', async (t) => {
  const file = join(tempFolder(t), 'crash.cjs');
  writeFileSync(file, crashScript);
  const cost = { ARGON2_MEMORY_KIB: '131072', ARGON2_TIME: '5', AUTH_WORKERS: '1' };
  // Longer than the hash takes on any machine, because the server cancels unfinished work after this time.
  const env = { ...cost, DRAIN_TIMEOUT: '60000', NODE_OPTIONS: `--require ${file}` };
  const server = await ServerProcess.start(t, { env });
  const client = await server.connect();

  const json = { username: 'nobody', password: 'throw' };
  assert.equal((await client.ask('POST', '/login', { json })).status, 503);

  assert.equal(await server.end('SIGTERM'), 0); // Exiting while argon2 runs would abort the process.
});
