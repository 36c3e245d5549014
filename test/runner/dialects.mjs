// Says which databases a run did not touch, and what else was skipped and why, so that a green run on
// a machine without them is not taken for more than it is. A suite that needs a database begins with
// its name, "postgres keeps the database contract", and so does a test that is in none, "postgres: a
// login is noted".
const dialects = ['sqlite', 'postgres', 'mariadb', 'mysql'];

/** @param {{ tests: readonly { name: string, isSuite: boolean, skip?: string | boolean }[] }} results */
export function describeSkips({ tests }) {
  const touched = new Set();
  const reasons = new Map();
  const skipped = new Map();
  for (const { name, isSuite, skip } of tests) {
    if (typeof skip === 'string' && !isSuite) skipped.set(skip, (skipped.get(skip) ?? 0) + 1);
    const dialect = dialects.find((one) => name.startsWith(isSuite ? `${one} ` : `${one}: `));
    if (dialect === undefined) continue;
    if (!skip) touched.add(dialect);
    else if (typeof skip === 'string') reasons.set(dialect, skip);
  }
  const lines = [...skipped]
    .filter(([reason]) => !reason.startsWith('test name does not match'))
    .map(([reason, count]) => `skipped, ${count === 1 ? 'one test' : `${count} tests`}: ${reason}`);
  if (touched.size === 0 && reasons.size === 0) return lines; // A filtered run about no database.
  const untested = dialects
    .filter((dialect) => !touched.has(dialect))
    .map((dialect) => [dialect, reasons.get(dialect)])
    .map(([dialect, reason]) => (reason === undefined ? dialect : `${dialect} (${reason})`));
  return [...lines, ...untested.map((text) => `database not tested: ${text}`)];
}
