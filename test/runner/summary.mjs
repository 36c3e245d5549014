// The last lines of a run's output.

const slowestMax = 10;
const unfinishedMax = 10;

/**
 * Lists the slowest files, up to ten.
 *
 * @param {readonly { file: string, ms: number }[]} files
 */
export function formatSlowestFiles(files) {
  const slowest = [...files].sort((a, b) => b.ms - a.ms).slice(0, slowestMax);
  const lines = slowest.map(({ file, ms }) => `${(ms / 1000).toFixed(1).padStart(7)} s  ${file}`);
  return ['slowest files:', ...lines].join('\n');
}

/** Lists up to ten files that have no result; returns `the end` when all files have one. */
export function formatUnfinished(files, results) {
  const finished = new Set(results.map(({ file }) => file));
  const unfinished = files.filter((file) => !finished.has(file));
  const more =
    unfinished.length > unfinishedMax ? ` and ${unfinished.length - unfinishedMax} more` : '';
  return unfinished.length === 0 ? 'the end' : unfinished.slice(0, unfinishedMax).join(', ') + more;
}

/** Returns the heading and the lines of each failure, with its message and seed; nothing without failures. */
export function formatFailures(heading, failures) {
  if (failures.length === 0) return [];
  return [
    heading,
    ...failures.flatMap(({ file, name, message, seeds, why }) => [
      `${file}: ${name}`,
      ...message.split('\n').map((line) => `    ${line}`),
      ...(seeds.length === 0 ? [] : [`    seed: ${seeds.join(' ')}`]),
      ...(why === undefined ? [] : [`    ${why}`]),
    ]),
  ];
}
