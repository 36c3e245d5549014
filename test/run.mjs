// Runs the tests: `npm test`, or `npm test -- stream` for files whose path contains `stream`, or for a
// group of that name. Accepts all options of `node --test`, and in addition: `--without <filter>` excludes
// files, `--in <folder>` searches there instead of in `src` and `test`, `--minutes <n>` and
// `--file-minutes <n>` limit the whole run and each file. A file that fails is run again alone, see
// `retries.mjs`. The summary of failures is also written to the file named by TEST_SUMMARY.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArguments, refuse } from './runner/arguments.mjs';
import { describeSkips } from './runner/dialects.mjs';
import { matches } from './runner/groups.mjs';
import { runTests } from './runner/node-test.mjs';
import { retryFailures } from './runner/retries.mjs';
import { formatFailures, formatSlowestFiles, formatUnfinished } from './runner/summary.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const given = parseArguments(process.argv.slice(2));
const { filters, without, options } = given;
const folders = given.folders.length > 0 ? given.folders : ['src', 'test'];
const isWhole = [filters, options, given.folders].every(({ length }) => length === 0);
// More than three times what all tests take on an idle machine.
const minutes = given.minutes ?? 30;
const fileMinutes = given.fileMinutes ?? 7;

// A list of files, because the test runner of Node 20 does not expand globs.
const files = folders
  .flatMap((folder) => findTestFiles(folder))
  .filter((file) => filters.length === 0 || matches(file, filters))
  .filter((file) => !matches(file, without))
  .sort();
if (files.length === 0) {
  refuse(
    without.length > 0 ? 'no file is left' : `no file has ${filters.join(' or ')} in its path`,
  );
}

const ending = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => ending.abort(signal));
// `node --test` does not limit the time of a file that does not end.
const deadline = setTimeout(() => {
  console.error(`Cannot finish: the tests take longer than ${minutes} minutes`);
  ending.abort('SIGTERM');
}, minutes * 60_000);

const record = mkdtempSync(join(tmpdir(), 'herald-record-'));
const parts = { root, record, options, fileMinutes, signal: ending.signal };
// One more file at a time than there are cores, because many tests wait for a time limit.
const run = await runTests({ ...parts, files, concurrency: availableParallelism() + 1 });
const { failed, flaky } = await retryFailures({
  failures: run.failures,
  runAlone: (file) => runTests({ ...parts, files: [file], concurrency: 1 }),
  signal: ending.signal,
});
clearTimeout(deadline);

// No log line of the run may contain a password or token that was used in it.
const search = ['--import', 'tsx', 'test/secrets-in-logs.ts', record];
if (isWhole) search.push('whole');
const { status } = spawnSync(process.execPath, search, { cwd: root, stdio: 'inherit' });
rmSync(record, { recursive: true, force: true });

for (const line of describeSkips(run)) console.log(line);
if (run.files.length > 1) console.log(formatSlowestFiles(run.files));
const isEnded = run.code === null || ending.signal.aborted;
const isFlakyOnly = run.code === 1 && flaky.length > 0 && failed.length === 0;
const isGood = (run.code === 0 || isFlakyOnly) && !isEnded && status === 0;
const summary = [
  ...formatFailures('FAILED', failed),
  ...(status === 0 ? [] : ['FAILED: the search for secrets in log lines']),
  ...(isEnded
    ? [`FAILED: a signal ended the tests, before ${formatUnfinished(files, run.files)}`]
    : []),
  ...(run.code === 0 || isEnded || run.failures.length > 0
    ? []
    : [`FAILED: exit code ${run.code}`]),
  ...formatFailures('FLAKY', flaky),
];
if (summary.length > 0) console.log(summary.join('\n'));
if (process.env['TEST_SUMMARY']) {
  writeFileSync(process.env['TEST_SUMMARY'], summary.map((line) => `${line}\n`).join(''));
}
process.exit(isGood ? 0 : 1);

/** @param {string} folder */
function findTestFiles(folder) {
  return readdirSync(resolve(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.test.ts'))
    .map((path) => relative(root, resolve(root, folder, path)));
}
