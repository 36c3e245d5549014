// A reporter beside the usual one: says at the end which databases the tests did not touch, and what
// else was skipped and why, so that a green run on a machine without them is not taken for more
// than it is. A suite that needs a database begins with its name, "postgres keeps the database
// contract", and so does a test that is in none, "postgres: a login is noted".
const dialects = ['sqlite', 'postgres', 'mariadb', 'mysql'];

/** @param {AsyncIterable<import('node:test/reporters').TestEvent>} events */
export default async function* report(events) {
  const touched = new Set();
  const reasons = new Map();
  const skipped = new Map();
  for await (const { type, data } of events) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    if (typeof data.skip === 'string' && data.details?.type !== 'suite') {
      skipped.set(data.skip, (skipped.get(data.skip) ?? 0) + 1);
    }
    const dialect = dialects.find((name) => {
      if (data.details?.type === 'suite') return data.name.startsWith(`${name} `);
      return data.name.startsWith(`${name}: `);
    });
    if (dialect === undefined) continue;
    if (data.skip === undefined || data.skip === false) touched.add(dialect);
    else if (typeof data.skip === 'string') reasons.set(dialect, data.skip);
  }
  for (const [reason, count] of skipped) {
    if (reason.startsWith('test name does not match')) continue;
    yield `skipped, ${count === 1 ? 'one test' : `${count} tests`}: ${reason}\n`;
  }
  if (touched.size === 0 && reasons.size === 0) return; // A filtered run that is about no database.
  for (const dialect of dialects) {
    if (touched.has(dialect)) continue;
    yield `database not tested: ${dialect}${reasons.has(dialect) ? ` (${reasons.get(dialect)})` : ''}\n`;
  }
}
