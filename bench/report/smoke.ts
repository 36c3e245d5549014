import type { Figure } from './figure.js';

const regressionFactor = 1.5;

/**
 * Returns the figures whose ratio is worse than 1.5 times the goal and worse than 1.5 times the stored
 * ratio. If only one of these two bounds exists, it alone counts. A goal that the stored result
 * already misses is therefore reported only when the ratio becomes still worse. Checks only ratios that
 * are stable on a busy machine. `goal.is` defines which direction is worse; without a goal, higher is worse.
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

/** Returns the figures that regressed in both measurements, with the values of the second. */
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
