/** An unknown name and the setting it most likely stands for. */
export interface SettingTypo {
  readonly name: string;
  readonly meant: string;
}

/**
 * Finds names that are a typo of a setting: one letter wrong, missing, extra or swapped with its
 * neighbour, or two such errors in a name of ten letters or more.
 */
export function findTypos(names: readonly string[], settings: readonly string[]): SettingTypo[] {
  return names.flatMap((name) => {
    if (settings.includes(name)) return [];
    const distanceMax = name.length < 10 ? 1 : 2;
    const candidates = settings
      .map((setting) => ({ setting, distance: editDistance(name, setting) }))
      .filter(({ distance }) => distance <= distanceMax)
      .sort((a, b) => a.distance - b.distance);
    return candidates[0] === undefined ? [] : [{ name, meant: candidates[0].setting }];
  });
}

/** Returns the edit distance of two texts (optimal string alignment). */
function editDistance(some: string, other: string): number {
  // Three rows of the distance table are kept. Its first row, 0, 1, …, is for the prefixes of `other`.
  let [before, last]: [number[], number[]] = [[], Array.from(`${other} `, (_, index) => index)];
  for (let row = 1; row <= some.length; row += 1) {
    const next = [row];
    for (let column = 1; column <= other.length; column += 1) {
      const isSame = some[row - 1] === other[column - 1];
      const isSwapped = some[row - 1] === other[column - 2] && some[row - 2] === other[column - 1];
      next[column] = Math.min(
        cellAt(last, column) + 1,
        cellAt(next, column - 1) + 1,
        cellAt(last, column - 1) + (isSame ? 0 : 1),
        isSwapped ? cellAt(before, column - 2) + 1 : Number.POSITIVE_INFINITY,
      );
    }
    [before, last] = [last, next];
  }
  return cellAt(last, other.length);
}

function cellAt(row: readonly number[], column: number): number {
  return row[column] ?? Number.POSITIVE_INFINITY;
}
