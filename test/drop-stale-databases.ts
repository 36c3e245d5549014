// node --import tsx test/drop-stale-databases.ts: run by `test/run.mjs` after the tests, because tests that
// were ended by a signal have not dropped their databases.
import { dropStaleDatabases } from './support/databases/stale-databases.js';

for (const dialect of ['postgres', 'mariadb', 'mysql'] as const) {
  const names = await dropStaleDatabases(dialect);
  if (names.length > 0) console.log(`${dialect}: dropped ${names.join(', ')} of earlier processes`);
}
