import assert from 'node:assert/strict';
import { test } from 'node:test';
import { settingNames } from './config.js';
import { findUnknown } from './setting-typos.js';

// [given name, intended name]
const typos: readonly (readonly [string, string])[] = [
  ['LOG_LEVLE', 'LOG_LEVEL'],
  ['log_level', 'LOG_LEVEL'],
  ['DATADIR', 'DATA_DIR'],
  ['DRAIN_TIMOUT', 'DRAIN_TIMEOUT'],
  ['DRIAN_TIMOUT', 'DRAIN_TIMEOUT'],
  ['CORS_ORIGIN', 'CORS_ORIGINS'],
  ['AUTH_WORKER', 'AUTH_WORKERS'],
  ['MAX_STREAM_PER_IP', 'MAX_STREAMS_PER_IP'],
  ['DB_PASWORD', 'DB_PASSWORD'],
];

for (const [name, meant] of typos) {
  test(`${name} is reported as a typo of ${meant}`, () => {
    assert.deepEqual(findUnknown({ [name]: 'x' }, settingNames()), [
      `${name} is not a setting of Herald: did you mean ${meant}?`,
    ]);
  });
}

test('of two settings similar to a misspelled name, the closer one is suggested', () => {
  const settings = ['MAX_STREAMS_A', 'MAX_STREAMS_AB'];

  const [problem] = findUnknown({ MAX_STREAMS_ABC: '1' }, settings);

  assert.match(problem ?? '', /did you mean MAX_STREAMS_AB\?$/);
});

test('an unknown name with a prefix that only Herald uses is reported', () => {
  assert.deepEqual(findUnknown({ DB_POOL: '1' }, settingNames()), [
    'DB_POOL is not a setting of Herald: see .env.example',
  ]);
});

test('correct names of settings and names of other programs are not reported', () => {
  const otherPrograms = [
    'PATH',
    'HOME',
    'ROOT',
    'MODE',
    'POST',
    'WEB_PORT',
    'WEB_HOST',
    'LOG_FILE',
  ];
  const runtimeVariables = [
    'NODE_OPTIONS',
    'NODE_EXTRA_CA_CERTS',
    'UV_THREADPOOL_SIZE',
    'MALLOC_ARENA_MAX',
    'TZ',
    'XDG_DATA_DIRS',
    'LC_ALL',
  ];
  const names = [...settingNames(), ...otherPrograms, ...runtimeVariables];
  const env = Object.fromEntries(names.map((name) => [name, '1']));

  assert.deepEqual(findUnknown(env, settingNames()), []);
});
