import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Wheel } from './timer-wheel.js';

test('an item is due within a tenth of a second after its deadline, not before', () => {
  const wheel = new Wheel<string>(0);
  wheel.set('a', 2501);

  assert.deepEqual(wheel.turn(2500), []);
  assert.deepEqual(wheel.turn(2600), ['a']);
  assert.deepEqual(wheel.turn(9000), []);
});

test('a deadline can be moved and taken back', () => {
  const wheel = new Wheel<string>(0);
  wheel.set('a', 1000);
  wheel.set('a', 5000);
  wheel.set('b', 1000);
  wheel.delete('b');

  assert.deepEqual(wheel.turn(4999), []);
  assert.deepEqual(wheel.turn(5000), ['a']);
  assert.equal(wheel.size, 0);
});

test('a deadline that is over is due at the next turn', () => {
  const wheel = new Wheel<string>(10_000);
  wheel.set('late', 3000);

  assert.deepEqual(wheel.turn(10_050), []);
  assert.deepEqual(wheel.turn(10_100), ['late']);
});

test('after a pause everything that was due comes, in order', () => {
  const wheel = new Wheel<string>(0);
  wheel.set('second', 7000);
  wheel.set('first', 2000);
  wheel.set('later', 90_000_000);

  assert.deepEqual(wheel.turn(80_000_000), ['first', 'second']);
  assert.equal(wheel.size, 1);
});
