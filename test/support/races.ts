import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';

/**
 * The number of runs that each test of random interleavings makes, and the seed they follow from.
 * `RACES` and `SEED` set them; the same seed gives the same runs.
 */
export const races = {
  runs: Number(process.env['RACES'] || 30),
  seed: Number(process.env['SEED'] || randomInt(2 ** 31)),
};

assert.ok(races.runs >= 1, 'RACES must be a positive number');
assert.ok(races.seed >= 0, 'SEED must be a number');
// Before the tests, and not by `t.diagnostic`: it is needed most where the process does not survive.
console.log(`SEED=${races.seed} RACES=${races.runs}`);
