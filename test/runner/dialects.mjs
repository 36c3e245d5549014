// Reports the databases that a run did not test, and the reasons of skipped tests, so that a run without
// database servers is not mistaken for a complete run. A suite that needs a database has a name that starts
// with the dialect ("postgres keeps the database contract"). So has a test outside such a suite
// ("postgres: a login is recorded").
const dialects = ['sqlite', 'postgres', 'mariadb', 'mysql'];

/**
 * Returns a line for each reason of skipped tests and for each dialect that was not tested.
 *
 * @param {{ tests: readonly { name: string, isSuite: boolean, skip?: string | boolean }[] }} results
 */
export function describeSkips({ tests }) {
  const tested = new Set();
  const reasons = new Map();
  const skipped = new Map();
  for (const { name, isSuite, skip } of tests) {
    if (typeof skip === 'string' && !isSuite) skipped.set(skip, (skipped.get(skip) ?? 0) + 1);
    const dialect = dialects.find((one) => name.startsWith(isSuite ? `${one} ` : `${one}: `));
    if (dialect === undefined) continue;
    if (!skip) tested.add(dialect);
    else if (typeof skip === 'string') reasons.set(dialect, skip);
  }
  const lines = [...skipped]
    .filter(([reason]) => !reason.startsWith('test name does not match'))
    .map(([reason, count]) => `skipped, ${count === 1 ? 'one test' : `${count} tests`}: ${reason}`);
  if (tested.size === 0 && reasons.size === 0) return lines; // The selected tests need no database.
  const untested = dialects
    .filter((dialect) => !tested.has(dialect))
    .map((dialect) => [dialect, reasons.get(dialect)])
    .map(([dialect, reason]) => (reason === undefined ? dialect : `${dialect} (${reason})`));
  return [...lines, ...untested.map((text) => `database not tested: ${text}`)];
}
