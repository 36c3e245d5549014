import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { waitForLogLine } from './support/recording/wait-for-log.js';
import { tempFolder } from './support/servers/process.js';
import { ServerProcess } from './support/servers/server-process.js';

/** Loaded into every thread of the process; a hashing thread ends while it hashes such a password. */
const defect = `
  const { parentPort } = require('node:worker_threads');
  const ends = { throw: () => { throw new Error('a defect') }, exit: () => process.exit(7) };
  if (process.argv.some((it) => it.includes('auth/jobs'))) {
    parentPort.on('message', ({ input }) => {
      const end = ends[input?.password];
      if (end) setImmediate(end); // By then all listeners have run, so the computation has started.
    });
  }
`;

/** A hash takes some tenths of a second, so that it is running when its thread ends. */
const costly = { ARGON2_MEMORY_KIB: '65536', ARGON2_TIME: '3', AUTH_WORKERS: '1' };

for (const password of ['throw', 'exit']) {
  test(`a server keeps running when a hashing thread ends by ${password}`, async (t) => {
    const file = join(tempFolder(t), 'defect.cjs');
    writeFileSync(file, defect);
    const env = { ...costly, NODE_OPTIONS: `--require ${file}` };
    const server = await ServerProcess.start(t, { env });
    const client = await server.connect();
    const stream = await client.listen('bob');

    const json = { username: 'nobody', password };
    const lost = await client.ask('POST', '/login', { json });
    const { accessToken: bearer } = await client.login('ada');

    assert.equal(lost.status, 503);
    assert.equal(lost.body['name'], 'service_unavailable');
    assert.match(lost.headers['retry-after'] ?? '', /^[1-9]/);
    assert.equal((await client.ask('GET', '/me', { bearer })).status, 200);
    assert.equal(stream.isEnded, false);
    await waitForLogLine(server.lines, { msg: 'worker thread exited' });
    await waitForLogLine(server.lines, { msg: 'worker thread replaced' });
    assert.equal(await server.end('SIGTERM'), 0);
  });
}

test('a server shuts down cleanly while a crashed thread still hashes', async (t) => {
  const file = join(tempFolder(t), 'defect.cjs');
  writeFileSync(file, defect);
  const cost = { ARGON2_MEMORY_KIB: '131072', ARGON2_TIME: '5', AUTH_WORKERS: '1' };
  // Long enough for the hash on any machine: unfinished work is cancelled after it.
  const env = { ...cost, DRAIN_TIMEOUT: '60000', NODE_OPTIONS: `--require ${file}` };
  const server = await ServerProcess.start(t, { env });
  const client = await server.connect();

  const json = { username: 'nobody', password: 'throw' };
  assert.equal((await client.ask('POST', '/login', { json })).status, 503);

  assert.equal(await server.end('SIGTERM'), 0); // Exiting while argon2 runs would abort the process.
});
