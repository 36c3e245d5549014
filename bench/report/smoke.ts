import type { Figure } from './figure.js';

const regressionFactor = 1.5;

/**
 * Returns the figures whose ratio is more than 1.5 times worse than the goal and more than 1.5 times
 * worse than the stored ratio. If only one of the two exists, the ratio is compared with that one alone.
 * So a goal that the stored result already misses is not reported again at the same ratio. Checks only
 * figures with `isStableUnderLoad`, and ignores goals on the value. `goal.is` defines which direction is
 * worse; without a goal, higher is worse.
 */
export function findRegressions(figures: readonly Figure[], stored: readonly Figure[]): Figure[] {
  return figures.filter(({ subject, what, ratio, goal, isStableUnderLoad }) => {
    if (ratio === undefined || isStableUnderLoad !== true) return false;
    const storedRatio = stored.find((one) => one.subject === subject && one.what === what)?.ratio
      ?.median;
    const bounds = goal?.on === 'ratio' ? [goal.bound] : [];
    if (storedRatio !== undefined) bounds.push(storedRatio);
    if (bounds.length === 0) return false;
    return bounds.every((bound) =>
      goal?.is === '>='
        ? ratio.median < bound / regressionFactor
        : ratio.median > bound * regressionFactor,
    );
  });
}

/** Returns the figures of the second measurement that regressed in both measurements. */
export function findRepeatedRegressions(
  first: readonly Figure[],
  second: readonly Figure[],
  stored: readonly Figure[],
): Figure[] {
  const firstRegressions = findRegressions(first, stored);
  return findRegressions(second, stored).filter(({ subject, what }) =>
    firstRegressions.some((one) => one.subject === subject && one.what === what),
  );
}

export function formatRegression({ subject, what, ratio, goal }: Figure): string {
  const bound = goal === undefined ? '' : `, goal ${goal.is} ${goal.bound}`;
  return `Worse by more than ${regressionFactor} times: ${subject}, ${what}: ratio ${ratio?.median}${bound}`;
}
