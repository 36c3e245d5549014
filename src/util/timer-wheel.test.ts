import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TimerWheel } from './timer-wheel.js';

test('advance() returns an item within 100 ms after its deadline, not before', () => {
  const timerWheel = new TimerWheel<string>(0);
  timerWheel.set('a', 2501);

  assert.deepEqual(timerWheel.advance(2500), []);
  assert.deepEqual(timerWheel.advance(2600), ['a']);
  assert.deepEqual(timerWheel.advance(9000), []);
});

test('a deadline in the timer wheel can be moved and cancelled', () => {
  const timerWheel = new TimerWheel<string>(0);
  timerWheel.set('a', 1000);
  timerWheel.set('a', 5000);
  timerWheel.set('b', 1000);
  timerWheel.delete('b');

  assert.deepEqual(timerWheel.advance(4999), []);
  assert.deepEqual(timerWheel.advance(5000), ['a']);
  assert.equal(timerWheel.size, 0);
});

test('a deadline that is set in the past is due in the next slot', () => {
  const timerWheel = new TimerWheel<string>(10_000);
  timerWheel.set('late', 3000);

  assert.deepEqual(timerWheel.advance(10_050), []);
  assert.deepEqual(timerWheel.advance(10_100), ['late']);
});

test('advance() after a long pause returns all due items in order', () => {
  const timerWheel = new TimerWheel<string>(0);
  timerWheel.set('second', 7000);
  timerWheel.set('first', 2000);
  timerWheel.set('later', 90_000_000);

  assert.deepEqual(timerWheel.advance(80_000_000), ['first', 'second']);
  assert.equal(timerWheel.size, 1);
});
