// A reporter for the runner that writes a JSON line for each test, failure, file and seed, and the
// function that reads these lines.
import { readFileSync } from 'node:fs';
import { relative, resolve } from 'node:path';

const messageLines = 12;

/**
 * Reports events as JSON lines. `data.file` is the file that calls `test`, which is often a helper. The test file
 * is therefore the file of the latest output: `preload.mjs` makes each test file print a line first.
 *
 * @param {AsyncIterable<import('node:test/reporters').TestEvent>} events
 */
export default async function* report(events) {
  let current;
  for await (const { type, data } of events) {
    const isFile = data.nesting === 0 && data.file !== undefined && isSame(data.name, data.file);
    if (type === 'test:stdout') current = data.file;
    const file = toRelativePath((isFile ? undefined : current) ?? data.file ?? '');
    if (type === 'test:complete' && isFile) {
      yield line({ kind: 'file', file, ms: data.details.duration_ms });
    }
    if (type === 'test:stdout' || type === 'test:diagnostic') {
      const seed = /\b\w*SEED=\S+/.exec(data.message)?.[0];
      if (seed !== undefined) yield line({ kind: 'seed', file, seed });
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const { error } = data.details;
    const isFailure = type === 'test:fail' && !data.todo;
    const { name, skip } = data;
    const result = { isFile, isSuite: isSuite(data), skip, isPass: !isFailure };
    yield line({ kind: 'test', file, name, ...result });
    if (!isFailure || error?.failureType === 'subtestsFailed') continue; // The subtest was reported.
    const text = isFile ? describeExit(error) : describeError(error?.cause ?? error);
    const message = text.split('\n').slice(0, messageLines).join('\n');
    const failure = { file, name: isFile ? 'the whole file' : name, isFile, message };
    yield line({ kind: 'failure', ...failure, isProperty: isPropertyFailure(text) });
  }
}

/** Reads the lines that the reporter has written. Ignores a line that a signal has cut off. */
export function readResults(path) {
  const results = { files: [], tests: [], failures: [] };
  const lists = { file: results.files, test: results.tests, failure: results.failures };
  const seeds = new Map();
  for (const text of readFileSync(path, 'utf8').split('\n')) {
    if (!text.endsWith('}')) continue;
    const { kind, ...result } = JSON.parse(text);
    if (kind !== 'seed') lists[kind].push(result);
    else seeds.set(result.file, (seeds.get(result.file) ?? new Set()).add(result.seed));
  }
  for (const failure of results.failures) failure.seeds = [...(seeds.get(failure.file) ?? [])];
  return results;
}

function isSuite({ details }) {
  return details.type === 'suite';
}

function describeError(cause) {
  return String(cause?.stack ?? cause);
}

function describeExit(error) {
  const { failureType, exitCode, signal } = error;
  if (failureType !== 'testCodeFailure') return describeError(error.cause ?? error);
  return signal ? `ended by ${signal}` : `ended with exit code ${exitCode}`;
}

/** Whether fast-check has found a counterexample; its message holds the seed. */
function isPropertyFailure(text) {
  return /\{ seed: -?\d+, /.test(text);
}

function isSame(name, file) {
  return typeof name === 'string' && resolve(name) === resolve(file);
}

function toRelativePath(file) {
  return file === '' ? '' : relative(process.cwd(), resolve(file));
}

function line(value) {
  return `${JSON.stringify(value)}\n`;
}
