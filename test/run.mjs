// Runs the tests: `npm test`, or `npm test -- stream` for files whose path contains `stream`. `help.mjs` lists
// the other arguments. A file that fails is run again, alone (`retries.mjs`). If TEST_SUMMARY names a file, the
// summary of failures is also written there.
import { spawnSync } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { hasPackages, parseArguments, refuse } from './runner/arguments.mjs';
import { build } from './runner/build.mjs';
import { describeSkips } from './runner/dialects.mjs';
import { createRunFolder } from './runner/folder.mjs';
import { matches } from './runner/groups.mjs';
import { runTests } from './runner/node-test.mjs';
import { retryFailures } from './runner/retries.mjs';
import { formatFailures, formatSlowestFiles, formatUnfinished } from './runner/summary.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const given = parseArguments(process.argv.slice(2), root);
const { filters, without, options } = given;
const folders = given.folders.length > 0 ? given.folders : ['src', 'test'];
const isWhole = [filters, options, given.folders].every(({ length }) => length === 0);
// On an idle machine all tests take about half of this time, with 300 races of each kind.
const minutes = given.minutes ?? 45;
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

if (!hasPackages()) refuse('packages are not installed; run: npm ci');

const ending = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => ending.abort(signal));
// `node --test` has no limit for the whole run.
const deadline = setTimeout(() => {
  console.error(`Cannot finish: the tests take longer than ${minutes} minutes`);
  ending.abort('SIGTERM');
}, minutes * 60_000);

const { record, temp } = createRunFolder();
// Tests in other folders do not start Herald.
const built = given.folders.length === 0 ? build(root, join(temp, 'build')) : undefined;
const runOptions = { root, record, temp, built, options, fileMinutes, signal: ending.signal };
// One file more than there are cores runs at a time, because many tests wait for a time limit.
const run = await runTests({ ...runOptions, files, concurrency: availableParallelism() + 1 });
const { failed, flaky } = await retryFailures({
  failures: run.failures,
  runAlone: (file) => runTests({ ...runOptions, files: [file], concurrency: 1 }),
  signal: ending.signal,
});
clearTimeout(deadline);

const isEnded = run.code === null || ending.signal.aborted;
const hasSelection = run.failures.length > 0 || run.tests.some(isSelected);
if (!isEnded && given.namePatterns.length > 0 && !hasSelection) {
  refuse(`no test has ${given.namePatterns.join(' or ')} in its name`);
}
// Log lines of the run must not contain passwords or tokens that the tests used.
const hasStarted = isEnded || run.files.length > 0;
const secretsStatus = hasStarted
  ? runScript('secrets-in-logs', record, ...(isWhole ? ['whole'] : []))
  : 0;
if (isWhole || isEnded || run.code !== 0) runScript('drop-stale-databases');

for (const line of describeSkips(run)) console.log(line);
if (run.files.length > 1) console.log(formatSlowestFiles(run.files));
const isFlakyOnly = run.code === 1 && flaky.length > 0 && failed.length === 0;
const hasPassed = (run.code === 0 || isFlakyOnly) && !isEnded && secretsStatus === 0;
const summary = [
  ...formatFailures('FAILED', failed),
  ...(secretsStatus === 0 ? [] : ['FAILED: the search for secrets in log lines']),
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
process.exit(hasPassed ? 0 : 1);

/** @param {string} folder */
function findTestFiles(folder) {
  return readdirSync(resolve(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.test.ts'))
    .map((path) => relative(root, resolve(root, folder, path)));
}

/** Whether `--test-name-pattern` matches this test. Up to Node 20, all other tests are reported as skipped. */
function isSelected({ isFile, isSuite, skip }) {
  return !isFile && !isSuite && !String(skip).startsWith('test name does not match');
}

/** Runs a script of this folder; returns its exit code. */
function runScript(name, ...args) {
  const command = ['--import', 'tsx', `test/${name}.ts`, ...args];
  return spawnSync(process.execPath, command, { cwd: root, stdio: 'inherit' }).status;
}
