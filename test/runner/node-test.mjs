// Runs `node --test` once.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readResults } from './results.mjs';

let runs = 0;

/**
 * Runs test files, from the build in the folder `built` if there is one. Settles with the results and the exit
 * code, which is `null` when a signal ended the run.
 *
 * @param {{ root: string, record: string, temp: string, built?: string, files: readonly string[],
 *   options: readonly string[], concurrency: number, fileMinutes: number, signal: AbortSignal }} parts
 */
export async function runTests(parts) {
  const { root, record, temp, built, files, options, concurrency, fileMinutes, signal } = parts;
  runs += 1;
  const results = join(record, `results-${runs}`);
  // Ends tests that hang. Up to Node 22 the limit applies to a whole file. On later versions it applies to
  // each test, and `preload.mjs` ends the file.
  const fileMs = fileMinutes * 60_000;
  const limits = [`--test-timeout=${fileMs}`, `--test-concurrency=${concurrency}`];
  const loader = built ? './test/runner/load-build.mjs' : 'tsx';
  const preloads = ['--import', loader, '--import', './test/runner/preload.mjs'];
  const reporters = [
    ...reporter('./test/runner/results.mjs', results),
    ...visibleReporter(options),
  ];
  const args = [...preloads, '--test', ...limits, ...reporters, ...options, ...files];
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: {
      ...process.env,
      HERALD_TEST_RECORD: record,
      HERALD_TEST_TEMP: temp,
      HERALD_TEST_FILE_MS: `${fileMs}`,
      HERALD_TEST_BUILD: built,
    },
    stdio: 'inherit',
    detached: true, // A new process group, which can be killed as a whole.
  });
  const endTests = () => {
    kill(child, signal.reason);
    setTimeout(() => kill(child, 'SIGKILL'), 10_000).unref();
  };
  signal.addEventListener('abort', endTests);
  const code = await new Promise((done) => child.once('close', done));
  signal.removeEventListener('abort', endTests);
  if (signal.aborted) kill(child, 'SIGKILL'); // Ends what the tests started and left running.
  const noResults = { files: [], tests: [], failures: [] };
  return { code, ...(existsSync(results) ? readResults(results) : noResults) };
}

function kill(child, signal) {
  try {
    process.kill(-child.pid, signal);
  } catch {
    // All processes of the group have ended.
  }
}

/** Returns the options of the reporter that the user sees: `spec`, unless `options` has another. */
function visibleReporter(options) {
  const has = (name) => options.some((one) => one === name || one.startsWith(`${name}=`));
  if (!has('--test-reporter')) return reporter('spec');
  // With more than one reporter each needs a destination.
  return has('--test-reporter-destination') ? [] : ['--test-reporter-destination=stdout'];
}

function reporter(name, destination = 'stdout') {
  return [`--test-reporter=${name}`, `--test-reporter-destination=${destination}`];
}
