// One run of `node --test`.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readResults } from './results.mjs';

let runs = 0;

/**
 * Runs files and settles with the exit code (`null`: a signal ended it) and the results.
 *
 * @param {{ root: string, record: string, files: readonly string[], options: readonly string[],
 *   concurrency: number, fileMinutes: number, signal: AbortSignal }} parts
 */
export async function runTests(parts) {
  const { root, record, files, options, concurrency, fileMinutes, signal } = parts;
  runs += 1;
  const results = join(record, `results-${runs}`);
  // Only there to end what hangs. Up to Node 22 the limit is for all tests of a file together, on later
  // ones for each test; there `heading.mjs` ends the file.
  const fileMs = fileMinutes * 60_000;
  const limits = [`--test-timeout=${fileMs}`, `--test-concurrency=${concurrency}`];
  const preloads = ['--import', 'tsx', '--import', './test/runner/heading.mjs'];
  const reporters = [...reporter('./test/runner/results.mjs', results), ...shown(options)];
  const args = [...preloads, '--test', ...limits, ...reporters, ...options, ...files];
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { ...process.env, HERALD_TEST_RECORD: record, HERALD_TEST_FILE_MS: `${fileMs}` },
    stdio: 'inherit',
    detached: true, // A group of its own, that can be ended as a whole.
  });
  const end = () => {
    kill(child, signal.reason);
    setTimeout(() => kill(child, 'SIGKILL'), 10_000).unref();
  };
  signal.addEventListener('abort', end);
  const code = await new Promise((done) => child.once('close', done));
  signal.removeEventListener('abort', end);
  const none = { files: [], tests: [], failures: [] };
  return { code, ...(existsSync(results) ? readResults(results) : none) };
}

function kill(child, signal) {
  try {
    process.kill(-child.pid, signal);
  } catch {
    // The group has ended by itself.
  }
}

/** What people see: `spec`, unless the options name something else. */
function shown(options) {
  const has = (name) => options.some((one) => one === name || one.startsWith(`${name}=`));
  if (!has('--test-reporter')) return reporter('spec');
  // With more than one reporter each needs a destination.
  return has('--test-reporter-destination') ? [] : ['--test-reporter-destination=stdout'];
}

function reporter(name, destination = 'stdout') {
  return [`--test-reporter=${name}`, `--test-reporter-destination=${destination}`];
}
