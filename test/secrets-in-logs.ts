// node --import tsx test/secrets-in-logs.ts <folder> [whole]: run by `test/run.mjs` after the tests.
// Exit code 1 when a log line contains a secret, or when a whole run has recorded nothing to search.
import { searchRecord } from './support/recording/secret-search.js';

const [folder = '', extent] = process.argv.slice(2);
const { secrets, lines, hits } = searchRecord(folder);

for (const line of hits) console.error(`secret in a log line: ${line}`);
if (secrets > 0 && lines > 0) {
  console.log(`log lines searched: ${lines}, for ${secrets} secrets: ${hits.length} hits`);
}
const isEmpty = extent === 'whole' && (secrets === 0 || lines === 0);
if (isEmpty) console.error('Cannot search logs: the run has left no record');
process.exitCode = hits.length > 0 || isEmpty ? 1 : 0;
