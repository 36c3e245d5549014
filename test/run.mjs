// Runs the tests: `npm test`, `npm test -- stream` (files whose path has that in it), and any
// option of `node --test`. A list of files, for the test runner of Node 20 expands no globs.
import { spawn, spawnSync } from 'node:child_process';
import { appendFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const minutesMax = 45; // Four times what they take on a machine that has nothing else to do, and more.
const root = fileURLToPath(new URL('..', import.meta.url));
const options = process.argv.slice(2).filter((arg) => arg.startsWith('-'));
const filters = process.argv.slice(2).filter((arg) => !arg.startsWith('-'));

const files = ['src', 'test']
  .flatMap((folder) => testFilesIn(folder))
  .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
  .sort();

if (files.length === 0) {
  console.error(`Cannot run tests: no file has ${filters.join(' or ')} in its path`);
  process.exit(1);
}

const hasReporter = options.some((option) => option.startsWith('--test-reporter'));
const reporters = hasReporter ? [] : [...reporter('spec'), ...reporter('./test/dialects.mjs')];
const failures = process.env['TEST_FAILURES']; // A file for those that failed, and for nothing else.
if (failures) reporters.push(...reporter('./test/failures.mjs', failures));
// The runner takes a file for a test, too: its limit is for all tests of a file together, and only
// there to end what hangs. Many tests wait for a limit to pass, so there is a file more at a time than
// there are cores.
const limits = ['--test-timeout=420000', `--test-concurrency=${availableParallelism() + 1}`];
const args = ['--import', 'tsx', '--test', ...limits, ...reporters];
const record = mkdtempSync(join(tmpdir(), 'herald-record-'));
const child = spawn(process.execPath, [...args, ...options, ...files], {
  cwd: root,
  env: { ...process.env, HERALD_TEST_RECORD: record },
  stdio: 'inherit',
  detached: true, // A group of its own, that can be ended as a whole.
});
const endAll = (signal) => process.kill(-child.pid, signal);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => endAll(signal));
// The runner waits for ever for a file that does not end.
const deadline = setTimeout(() => {
  console.error(`Cannot finish: the tests take longer than ${minutesMax} minutes`);
  endAll('SIGTERM');
  setTimeout(() => endAll('SIGKILL'), 10_000).unref();
}, minutesMax * 60_000);
child.on('close', (code) => {
  clearTimeout(deadline);
  // No log line of the whole run may have a password or token that was used in it.
  const search = ['--import', 'tsx', 'test/secrets-in-logs.ts', record];
  if (filters.length === 0) search.push('whole');
  const { status } = spawnSync(process.execPath, search, { cwd: root, stdio: 'inherit' });
  rmSync(record, { recursive: true, force: true });
  if (failures && (code !== 0 || status !== 0)) {
    const ended = code === null ? 'a signal ended the tests' : `tests: exit code ${code}`;
    appendFileSync(failures, `${ended}, search of the log for secrets: exit code ${status}\n`);
  }
  process.exit((code ?? 1) || (status ?? 1)); // No code: a signal ended it.
});

function reporter(name, destination = 'stdout') {
  return [`--test-reporter=${name}`, `--test-reporter-destination=${destination}`];
}

/** @param {string} folder */
function testFilesIn(folder) {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.test.ts'))
    .map((path) => join(folder, path));
}
