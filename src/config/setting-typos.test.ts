import assert from 'node:assert/strict';
import { test } from 'node:test';
import { settingNames } from './config.js';
import { findTypos } from './setting-typos.js';

// [given name, intended name]
const typos: readonly (readonly [string, string])[] = [
  ['PROT', 'PORT'],
  ['PORTS', 'PORT'],
  ['HOS', 'HOST'],
  ['DRAIN_TIMOUT', 'DRAIN_TIMEOUT'],
  ['DRIAN_TIMOUT', 'DRAIN_TIMEOUT'],
  ['CORS_ORIGIN', 'CORS_ORIGINS'],
  ['AUTH_WORKER', 'AUTH_WORKERS'],
  ['MAX_STREAM_PER_IP', 'MAX_STREAMS_PER_IP'],
];

for (const [name, meant] of typos) {
  test(`${name} is recognised as a typo of ${meant}`, () => {
    assert.deepEqual(findTypos([name], settingNames()), [{ name, meant }]);
  });
}

test('of two similar settings the closer one is suggested', () => {
  const settings = ['MAX_STREAMS_A', 'MAX_STREAMS_AB'];

  assert.deepEqual(findTypos(['MAX_STREAMS_ABC'], settings), [
    { name: 'MAX_STREAMS_ABC', meant: 'MAX_STREAMS_AB' },
  ]);
});

test('correct names of settings and names of other programs are not reported as typos', () => {
  const otherPrograms = ['PATH', 'HOME', 'ROOT', 'MODE', 'WEB_PORT', 'WEB_HOST', 'LOG_FILE', 'TZ'];
  const runtimeVariables = [
    'NODE_OPTIONS',
    'NODE_EXTRA_CA_CERTS',
    'UV_THREADPOOL_SIZE',
    'MALLOC_ARENA_MAX',
  ];

  assert.deepEqual(
    findTypos([...settingNames(), ...otherPrograms, ...runtimeVariables], settingNames()),
    [],
  );
});
