// Retries failures. A test is flaky when it fails once and then passes twice in a run of its file alone.
import { isSeeded } from './groups.mjs';

/** If more files have failed, none is retried: so many files are not flaky, and retries would take too long. */
const retriedFilesMax = 10;
const retries = 2;

/**
 * Runs each file with a failure again, alone, unless its failure depends on a random seed. Settles with two
 * lists of failures. A failure in `failed` has the member `why`: the reason why it is not flaky.
 *
 * @param {{ failures: readonly object[], runAlone: (file: string) => Promise<object>,
 *   signal: AbortSignal }} parts
 */
export async function retryFailures({ failures, runAlone, signal }) {
  const files = [...new Set(failures.map(({ file }) => file))];
  const failed = [];
  const flaky = [];
  for (const file of files) {
    const inFile = failures.filter((failure) => failure.file === file);
    const why =
      reasonNotToRetry(file, inFile, files) ?? (await retry(file, inFile, runAlone, signal));
    if (why === undefined) flaky.push(...inFile);
    else failed.push(...inFile.map((failure) => ({ ...failure, why })));
  }
  return { failed, flaky };
}

function reasonNotToRetry(file, failures, files) {
  if (!file.endsWith('.test.ts')) return 'not retried: no test file is known';
  if (isSeeded(file)) return 'not retried: a seeded test';
  if (failures.some(({ isProperty }) => isProperty)) return 'not retried: a property test';
  if (files.length > retriedFilesMax) return `not retried: ${files.length} files failed`;
  return undefined;
}

async function retry(file, failures, runAlone, signal) {
  for (let number = 1; number <= retries; number += 1) {
    if (signal.aborted) return 'not retried: the run was ended';
    console.log(`\nretry ${number} of ${retries}, alone: ${file}`);
    const { code, tests } = await runAlone(file);
    // A test that did not run in the retry has not passed: it was skipped, or its file ended early.
    const hasPassed = ({ name, isFile }) =>
      tests.some((one) => one.isPass && !one.skip && (isFile || one.name === name));
    if (code !== 0 || !failures.every(hasPassed)) return `failed again in retry ${number}, alone`;
  }
  return undefined;
}
