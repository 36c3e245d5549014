// What becomes of failures: a test that fails once and then passes twice, alone, is flaky.
import { isSeeded } from './groups.mjs';

/** As many files with a failure are no accident; to retry them all would take long. */
const retriedFilesMax = 10;
const retries = 2;

/**
 * Runs each file with a failure again, alone, unless its failure depends on a random seed. Settles
 * with the failures in two lists; each that failed for good says `why`.
 *
 * @param {{ failures: readonly object[], runAlone: (file: string) => Promise<object>,
 *   signal: AbortSignal }} parts
 */
export async function retryFailures({ failures, runAlone, signal }) {
  const files = [...new Set(failures.map(({ file }) => file))];
  const failed = [];
  const flaky = [];
  for (const file of files) {
    const ofFile = failures.filter((failure) => failure.file === file);
    const why =
      reasonNotToRetry(file, ofFile, files) ?? (await retry(file, ofFile, runAlone, signal));
    if (why === undefined) flaky.push(...ofFile);
    else failed.push(...ofFile.map((failure) => ({ ...failure, why })));
  }
  return { failed, flaky };
}

function reasonNotToRetry(file, failures, files) {
  if (!file.endsWith('.test.ts')) return 'not retried: no file of tests is known';
  if (isSeeded(file)) return 'not retried: a seeded test';
  if (failures.some(({ isProperty }) => isProperty)) return 'not retried: a property test';
  if (files.length > retriedFilesMax) return `not retried: ${files.length} files failed`;
  return undefined;
}

async function retry(file, failures, runAlone, signal) {
  for (let time = 1; time <= retries; time += 1) {
    if (signal.aborted) return 'not retried: the run was ended';
    console.log(`\nretry ${time} of ${retries}, alone: ${file}`);
    const { code, tests } = await runAlone(file);
    // A test that did not run has not passed: it may be skipped, or its file may have ended early.
    const hasPassed = ({ name, isFile }) =>
      tests.some((one) => one.isPass && !one.skip && (isFile || one.name === name));
    if (code !== 0 || !failures.every(hasPassed)) return `failed again in retry ${time}, alone`;
  }
  return undefined;
}
