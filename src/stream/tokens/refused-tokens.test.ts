import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type NewExpiry, RefusedTokens } from './refused-tokens.js';

const start = 1_800_000_000_000;
const waitMs = 180_000;
const marginMs = 30_000;

/** Creates a `RefusedTokens` whose new expiries are collected instead of stored. */
function createRefusedTokens() {
  const time = { now: start };
  const stored: NewExpiry[] = [];
  /** `beforeStore` is called before each new expiry is collected. */
  const hooks = { beforeStore: async () => {} };
  const refused = new RefusedTokens({
    wallClock: () => time.now,
    async storeExpiry(expiry) {
      await hooks.beforeStore();
      stored.push(expiry);
    },
  });
  return { time, refused, stored, hooks };
}

test('the token of a client that was told to retry later is kept alive for the retry delay and another 30 s', () => {
  const { time, refused } = createRefusedTokens();
  const expiresAt = start + 1;

  refused.add('token', waitMs);

  time.now = start + waitMs + marginMs - 1;
  assert.equal(refused.isKeptAlive('token', expiresAt), true);
  assert.equal(refused.isKeptAlive('other', expiresAt), false);
  time.now += 1;
  assert.equal(refused.isKeptAlive('token', expiresAt), false);
});

test('a token that had expired before it was refused stays expired', () => {
  const { refused } = createRefusedTokens();

  refused.add('token', waitMs);

  assert.equal(refused.isKeptAlive('token', start), false);
  assert.equal(refused.isKeptAlive('token', start + 1), true);
});

test('each refusal while a token is kept alive prolongs that time, and a later refusal does not revive the token', () => {
  const { time, refused } = createRefusedTokens();
  const expiresAt = start + 1;
  refused.add('token', waitMs);

  for (let refusal = 0; refusal < 3; refusal += 1) {
    time.now += waitMs + marginMs - 1;
    assert.equal(refused.isKeptAlive('token', expiresAt), true);
    refused.add('token', waitMs);
  }
  time.now += waitMs + marginMs;
  refused.add('token', waitMs);

  assert.equal(refused.isKeptAlive('token', expiresAt), false);
});

test('a shorter wait does not shorten an earlier longer one', async () => {
  const { time, refused, stored } = createRefusedTokens();
  refused.add('token', waitMs);
  time.now += 1000;

  refused.add('token', 1000);
  await refused.store();

  time.now = start + waitMs + marginMs - 1;
  assert.equal(refused.isKeptAlive('token', start + 1), true);
  const until = start + waitMs + marginMs;
  assert.deepEqual(stored, [{ tokenHashes: ['token'], validAt: start, until }]);
});

test('tokens are stored 500 at a time, with the earliest refusal and the latest end of each batch', async () => {
  const { time, refused, stored } = createRefusedTokens();
  for (let index = 0; index < 501; index += 1) {
    refused.add(`${index}`, index === 100 ? waitMs : 0);
    time.now += 1;
  }

  await refused.store();

  const { tokenHashes = [], ...times } = stored[0] ?? {};
  assert.deepEqual(
    tokenHashes,
    Array.from({ length: 500 }, (_, index) => `${index}`),
  );
  assert.deepEqual(times, { validAt: start, until: start + 100 + waitMs + marginMs });
  const last = { tokenHashes: ['500'], validAt: start + 500, until: start + 500 + marginMs };
  assert.deepEqual(stored.slice(1), [last]);
});

test('a stored token is not stored again until it is refused again', async () => {
  const { time, refused, stored } = createRefusedTokens();
  refused.add('token', 0);
  await refused.store();

  await refused.store();
  assert.equal(stored.length, 1);
  time.now += 10;
  refused.add('token', 0);
  await refused.store();

  const validAt = start + 10;
  assert.deepEqual(stored[1], { tokenHashes: ['token'], validAt, until: validAt + marginMs });
});

test('a token that is refused while it is being stored is stored again', async () => {
  const { time, refused, stored, hooks } = createRefusedTokens();
  refused.add('token', 0);
  hooks.beforeStore = async () => {
    time.now = start + 10;
    if (stored.length === 0) refused.add('token', 0);
  };

  await refused.store();
  await refused.store();

  assert.deepEqual(
    stored.map(({ until }) => until),
    [start + marginMs, start + 10 + marginMs],
  );
});

test('if storing the tokens fails, the next call of store stores the same tokens', async () => {
  const { time, refused, stored, hooks } = createRefusedTokens();
  const failure = new Error('connection lost');
  hooks.beforeStore = () => Promise.reject(failure);
  refused.add('one', 0);
  await assert.rejects(refused.store(), failure);

  hooks.beforeStore = async () => {};
  time.now += 10;
  refused.add('two', 0);
  await refused.store();

  const until = start + 10 + marginMs;
  assert.deepEqual(stored, [{ tokenHashes: ['one', 'two'], validAt: start, until }]);
});

test('at most 10,000 tokens are kept: the one that was refused least recently is dropped', async () => {
  const { refused, stored } = createRefusedTokens();
  for (let index = 0; index < 10_000; index += 1) refused.add(`${index}`, 0);
  refused.add('0', 0);

  refused.add('another', 0);
  await refused.store();

  const isKept = (hash: string) => refused.isKeptAlive(hash, start + 1);
  assert.deepEqual(['0', '1', '2', 'another'].map(isKept), [true, false, true, true]);
  const hashes = stored.flatMap(({ tokenHashes }) => tokenHashes);
  assert.equal(hashes.length, 10_000);
  assert.equal(hashes.includes('1'), false);
});
