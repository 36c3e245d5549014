import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TakeoverWatch } from './token-leak-detector.js';

const minute = 60_000;

test('five places within a minute are one client, six are not', () => {
  const watch = new TakeoverWatch();

  const leaks = [1, 2, 3, 4, 5, 6].map((place) => watch.note('token', `place ${place}`, place));

  assert.deepEqual(leaks, [false, false, false, false, false, true]);
  assert.equal(watch.size, 0);
});

test('one place may take its stream over as often as it likes', () => {
  const watch = new TakeoverWatch();

  for (let time = 0; time < 1000; time += 1) assert.equal(watch.note('token', 'home', time), false);
});

test('what is a minute ago does not count, and tokens do not share', () => {
  const watch = new TakeoverWatch();
  for (const place of [1, 2, 3, 4, 5]) watch.note('token', `place ${place}`, 0);

  assert.equal(watch.note('other', 'place 6', 1), false);
  assert.equal(watch.note('token', 'place 6', minute), false);
  assert.equal(watch.note('token', 'place 7', minute), false);
});

test('of ten thousand tokens and one, the one taken over longest ago is forgotten', () => {
  const watch = new TakeoverWatch();
  for (const place of [1, 2, 3, 4, 5]) watch.note('first', `place ${place}`, 0);
  for (let token = 0; token < 10_000; token += 1) watch.note(`token ${token}`, 'place', 0);

  assert.equal(watch.size, 10_000);
  assert.equal(watch.note('first', 'place 6', 0), false);
});
