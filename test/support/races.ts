import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';

/**
 * Number of runs of each random-interleaving test, from `RACES`, 30 by default; and the seed of these runs,
 * from `SEED`, random by default. The same seed gives the same runs.
 */
export const races = {
  runs: Number(process.env['RACES'] || 30),
  seed: Number(process.env['SEED'] || randomInt(2 ** 31)),
};

assert.ok(races.runs >= 1, 'RACES must be a positive number');
assert.ok(races.seed >= 0, 'SEED must be a number');
// Printed before the tests, not by `t.diagnostic`: the seed matters most when the process crashes.
console.log(`SEED=${races.seed} RACES=${races.runs}`);

/** Returns a generator of numbers from 0 to 1 that are the same for the same seed. */
export function randomFrom(seed: number): () => number {
  let state = (seed * 2_654_435_761) % 4_294_967_296; // Spreads neighbouring seeds.
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 4_294_967_296;
    return state / 4_294_967_296;
  };
}
