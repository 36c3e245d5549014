import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { findServer } from './support/databases/test-server.js';

// Without CI=true the last lines of a run report a missing server (`runner/dialects.mjs`).
const isExpected = process.env['CI'] === 'true';

for (const dialect of ['postgres', 'mariadb'] as const) {
  test(`a ${dialect} server is available for the tests`, {
    skip: isExpected ? false : 'only with CI=true',
  }, async () => {
    const server = await findServer(dialect);

    assert.equal(typeof server === 'string' ? server : 'found', 'found');
  });
}

const redis = new URL(process.env['TEST_REDIS_URL'] || 'redis://127.0.0.1:6390');
const redisHost = { host: redis.hostname, port: Number(redis.port) || 6379 };

test('the Redis server of the tests writes each command to disk before it replies', {
  skip: (await isListening()) ? false : `no server on ${redis.host}: test/servers.sh`,
}, async () => {
  const socket = connect(redisHost);
  socket.end('config get appendonly\r\nconfig get appendfsync\r\nquit\r\n');

  const words = (await text(socket)).split('\r\n').filter((word) => /^[a-z]/.test(word));

  assert.deepEqual(words, ['appendonly', 'yes', 'appendfsync', 'always']);
});

async function isListening(): Promise<boolean> {
  const socket = connect(redisHost);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false; // No server listens there.
  } finally {
    socket.destroy();
  }
}
