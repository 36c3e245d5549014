// Names that stand for parts of paths: `npm test -- smoke`, `npm test -- --without once`.
const groups = {
  /** Start, tour, login, stream, resume, publish and stop; these run under every supported Node. */
  smoke: ['test/smoke.test.ts', 'test/readme.test.ts'],
  /** Seeded runs of random interleavings. A failure is reported with its seed and never retried. */
  races: ['.race.test.ts'],
  /** Does not depend on the version of Node, so `.ci/run` runs it under one only. */
  once: ['test/browser.test.ts'],
};

/** Tests whose failure is a finding whatever a second run says: it depends on a random seed. */
export const isSeeded = (file) => /\.(race|fuzz|mutant)\.test\.ts$/.test(file);

/** @param {readonly string[]} words Parts of paths, and names of groups. */
export function matches(file, words) {
  return words
    .flatMap((word) => (Object.hasOwn(groups, word) ? groups[word] : [word]))
    .some((part) => file.includes(part));
}
