import type { Figure } from './figure.js';

const offMax = 1.5;

/**
 * Returns the figures whose ratio is worse by more than 1.5 times than both the goal and the kept
 * result: a goal that was already missed is not reported again. Checks only ratios that are stable
 * on a busy machine. `goal.is` defines which direction is worse; without a goal, higher is.
 */
export function findRegressions(figures: readonly Figure[], kept: readonly Figure[]): Figure[] {
  return figures.filter(({ subject, what, ratio, goal, isSteady }) => {
    if (ratio === undefined || isSteady !== true) return false;
    const before = kept.find((one) => one.subject === subject && one.what === what)?.ratio?.median;
    const bounds = goal?.on === 'ratio' ? [goal.bound] : [];
    if (before !== undefined) bounds.push(before);
    if (bounds.length === 0) return false;
    return bounds.every((bound) =>
      goal?.is === '>=' ? ratio.median < bound / offMax : ratio.median > bound * offMax,
    );
  });
}

/** Returns the figures that regressed in both measurements, with the values of the second. */
export function findRepeatedRegressions(
  first: readonly Figure[],
  second: readonly Figure[],
  kept: readonly Figure[],
): Figure[] {
  const before = findRegressions(first, kept);
  return findRegressions(second, kept).filter(({ subject, what }) =>
    before.some((one) => one.subject === subject && one.what === what),
  );
}

export function formatRegression({ subject, what, ratio, goal }: Figure): string {
  const bound = goal === undefined ? '' : `, goal ${goal.is} ${goal.bound}`;
  return `Off by more than ${offMax} times: ${subject}, ${what}: ratio ${ratio?.median}${bound}`;
}
