// Names of groups of test files: `npm test -- smoke`, `npm test -- --without once`.
export const groups = {
  /** A server from its start to its stop, and the README. `.ci/run` runs these files under each version of Node. */
  smoke: ['test/smoke.test.ts', 'test/readme.test.ts'],
  /** Tests of random interleavings. A failure is reported with its seed and never retried. */
  races: ['.race.test.ts', '.fuzz.test.ts'],
  /** Tests that do not depend on the version of Node: `.ci/run` runs them under one version only. */
  once: [
    'test/browser.test.ts',
    'test/certificate-clients.test.ts',
    'test/integrating.test.ts',
    'test/open-files.test.ts',
  ],
};

/** Whether the tests of a file depend on a random seed. Such tests are not retried: a retry has another seed. */
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
