import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { waitForLogLine } from './support/recording/wait-for-log.js';
import { tempFolder } from './support/servers/process.js';
import { ServerProcess } from './support/servers/server-process.js';

/** Loaded into every thread of the process. Ends a hashing thread that hashes the password `throw` or `exit`. */
const defect = `
  const { parentPort } = require('node:worker_threads');
  const crashes = { throw: () => { throw new Error('a defect') }, exit: () => process.exit(7) };
  if (process.argv.some((arg) => arg.includes('auth/jobs'))) {
    parentPort.on('message', ({ input }) => {
      const crash = crashes[input?.password];
      if (crash) setImmediate(crash); // Runs after all other listeners, so hashing has started.
    });
  }
`;

/** Makes a hash take some tenths of a second, so that hashing is not done when its thread ends. */
const slowHashEnv = { ARGON2_MEMORY_KIB: '65536', ARGON2_TIME: '3', AUTH_WORKERS: '1' };

for (const password of ['throw', 'exit']) {
  test(`the server keeps running when a hashing thread ends by ${password}`, async (t) => {
    const file = join(tempFolder(t), 'defect.cjs');
    writeFileSync(file, defect);
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

test('the server shuts down cleanly while a crashed thread still hashes', async (t) => {
  const file = join(tempFolder(t), 'defect.cjs');
  writeFileSync(file, defect);
  const cost = { ARGON2_MEMORY_KIB: '131072', ARGON2_TIME: '5', AUTH_WORKERS: '1' };
  // Long enough for the hash on any machine; after this time, unfinished work is cancelled.
  const env = { ...cost, DRAIN_TIMEOUT: '60000', NODE_OPTIONS: `--require ${file}` };
  const server = await ServerProcess.start(t, { env });
  const client = await server.connect();

  const json = { username: 'nobody', password: 'throw' };
  assert.equal((await client.ask('POST', '/login', { json })).status, 503);

  assert.equal(await server.end('SIGTERM'), 0); // Exiting while argon2 runs would abort the process.
});
