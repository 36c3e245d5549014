import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { findServer } from './support/databases/test-server.js';

// Without CI=true, a missing database server is only reported at the end of a run (`runner/dialects.mjs`).
const isRequired = process.env['CI'] === 'true';

for (const dialect of ['postgres', 'mariadb'] as const) {
  test(`a ${dialect} database server is available for the tests`, {
    skip: isRequired ? false : 'only with CI=true',
  }, async () => {
    const server = await findServer(dialect);

    assert.equal(typeof server === 'string' ? server : 'found', 'found');
  });
}

const redis = new URL(process.env['TEST_REDIS_URL'] || 'redis://127.0.0.1:6390');
const redisHost = { host: redis.hostname, port: Number(redis.port) || 6379 };

test('the Redis server of the tests writes each command to disk before it replies', {
  skip: (await isRedisListening()) ? false : `no server on ${redis.host}: test/servers.sh`,
}, async () => {
  const socket = connect(redisHost);
  socket.end('config get appendonly\r\nconfig get appendfsync\r\nquit\r\n');

  const words = (await text(socket)).split('\r\n').filter((word) => /^[a-z]/.test(word));

  assert.deepEqual(words, ['appendonly', 'yes', 'appendfsync', 'always']);
});

async function isRedisListening(): Promise<boolean> {
  const socket = connect(redisHost);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false; // Nothing listens there.
  } finally {
    socket.destroy();
  }
}
