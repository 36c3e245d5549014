import type { Figure } from './figure.js';

const offMax = 1.5;

/**
 * Figures whose ratio is off by more than 1.5 times, both from the goal and from what was kept: a
 * goal that was missed before is no news. Only ratios that a busy machine leaves alone are judged;
 * `goal.is` tells which way is bad, and without a goal more is.
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

/** Those that were off both times that they were measured: the better median counts. */
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
