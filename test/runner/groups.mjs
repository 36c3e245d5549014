// Names for groups of test files: `npm test -- smoke`, `npm test -- --without once`.
export const groups = {
  /** Start, tour, login, stream, resume, publish and stop; these run under every supported Node. */
  smoke: ['test/smoke.test.ts', 'test/readme.test.ts'],
  /** Seeded runs of random interleavings. A failure is reported with its seed and never retried. */
  races: ['.race.test.ts'],
  /** Independent of the version of Node, so `.ci/run` runs it under one version only. */
  once: ['test/browser.test.ts'],
};

/** Whether a file's tests depend on a random seed, so that a failure counts even if a retry passes. */
export const isSeeded = (file) => /\.(race|fuzz|mutant)\.test\.ts$/.test(file);

/**
 * Returns whether a path contains one of the words or belongs to one of the groups.
 *
 * @param {readonly string[]} words Parts of paths, and names of groups.
 */
export function matches(file, words) {
  return words
    .flatMap((word) => (Object.hasOwn(groups, word) ? groups[word] : [word]))
    .some((part) => file.includes(part));
}
