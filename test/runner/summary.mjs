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

/** Names up to ten files that have no result; `the end` when all have one. */
export function formatUnfinished(files, results) {
  const done = new Set(results.map(({ file }) => file));
  const left = files.filter((file) => !done.has(file));
  const more = left.length > unfinishedMax ? ` and ${left.length - unfinishedMax} more` : '';
  return left.length === 0 ? 'the end' : left.slice(0, unfinishedMax).join(', ') + more;
}

/** Returns a heading and each failure with its message and seed; no lines without failures. */
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
