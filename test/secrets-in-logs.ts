// node --import tsx test/secrets-in-logs.ts <folder> [whole]: `test/run.mjs` runs this after the tests.
// Exits with code 1 when a log line contains a secret, and, with `whole`, when no secret or no log line was
// recorded.
import { searchRecord } from './support/recording/secret-search.js';

const [folder = '', extent] = process.argv.slice(2);
const { secretCount, lineCount, hits } = searchRecord(folder);

for (const line of hits) console.error(`secret in a log line: ${line}`);
if (secretCount > 0 && lineCount > 0) {
  console.log(`log lines searched: ${lineCount}, for ${secretCount} secrets: ${hits.length} hits`);
}
const isEmpty = extent === 'whole' && (secretCount === 0 || lineCount === 0);
if (isEmpty) console.error('Cannot search logs: the run has recorded no secrets or no log lines');
process.exitCode = hits.length > 0 || isEmpty ? 1 : 0;
