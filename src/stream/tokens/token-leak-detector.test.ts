import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TokenLeakDetector } from './token-leak-detector.js';

const minute = 60_000;

test('a token is leaked when six addresses take it over within a minute', () => {
  const detector = new TokenLeakDetector();

  const leaks = [1, 2, 3, 4, 5, 6].map((address) =>
    detector.recordTakeover('token', `address ${address}`, address),
  );

  assert.deepEqual(leaks, [false, false, false, false, false, true]);
  assert.equal(detector.size, 0);
});

test('one address may take over its own stream any number of times', () => {
  const detector = new TokenLeakDetector();

  for (let time = 0; time < 1000; time += 1)
    assert.equal(detector.recordTakeover('token', 'home', time), false);
});

test('takeovers are counted per token and for one minute', () => {
  const detector = new TokenLeakDetector();
  for (const address of [1, 2, 3, 4, 5]) detector.recordTakeover('token', `address ${address}`, 0);

  assert.equal(detector.recordTakeover('other', 'address 6', 1), false);
  assert.equal(detector.recordTakeover('token', 'address 6', minute), false);
  assert.equal(detector.recordTakeover('token', 'address 7', minute), false);
});

test('of more than 10,000 tokens, the token whose last takeover is the oldest is evicted', () => {
  const detector = new TokenLeakDetector();
  for (const address of [1, 2, 3, 4, 5]) detector.recordTakeover('first', `address ${address}`, 0);
  for (let token = 0; token < 10_000; token += 1)
    detector.recordTakeover(`token ${token}`, 'address', 0);

  assert.equal(detector.size, 10_000);
  assert.equal(detector.recordTakeover('first', 'address 6', 0), false);
});
