// The last lines of a run.

const slowestMax = 10;
const unfinishedMax = 10;

/** @param {readonly { file: string, ms: number }[]} files */
export function slowestFiles(files) {
  const slowest = [...files].sort((a, b) => b.ms - a.ms).slice(0, slowestMax);
  const lines = slowest.map(({ file, ms }) => `${(ms / 1000).toFixed(1).padStart(7)} s  ${file}`);
  return ['slowest files:', ...lines].join('\n');
}

/** Names the files that have no result. */
export function unfinished(files, results) {
  const done = new Set(results.map(({ file }) => file));
  const left = files.filter((file) => !done.has(file));
  const more = left.length > unfinishedMax ? ` and ${left.length - unfinishedMax} more` : '';
  return left.length === 0 ? 'the end' : left.slice(0, unfinishedMax).join(', ') + more;
}

/** A heading and each failure below it with its message and seed; nothing when there is none. */
export function listOf(heading, failures) {
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
