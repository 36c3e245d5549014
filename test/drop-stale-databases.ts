// node --import tsx test/drop-stale-databases.ts: `test/run.mjs` runs this after the tests, because tests
// that a signal has ended did not drop their databases.
import { dropStaleDatabases } from './support/databases/stale-databases.js';

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const names = await dropStaleDatabases(dialect);
  if (names.length > 0) console.log(`${dialect}: dropped ${names.join(', ')} of earlier processes`);
}
