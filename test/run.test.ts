import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { findServer } from './support/databases/test-server.js';
import { tempFolder, waitForExit } from './support/servers/process.js';
import { until } from './support/until.js';

const runner = fileURLToPath(new URL('run.mjs', import.meta.url));
const root = fileURLToPath(new URL('..', import.meta.url));
const testServer = JSON.stringify(import.meta.resolve('./support/databases/test-server.js'));
const fastCheck = JSON.stringify(import.meta.resolve('fast-check'));

/** Start of each test file: counts the runs of the file. */
const countingPrefix = `
  import { appendFileSync, readFileSync } from 'node:fs';
  import { test } from 'node:test';
  appendFileSync(import.meta.filename + '.runs', 'x');
  const run = readFileSync(import.meta.filename + '.runs').length;
  const failIn = (...runs) => { if (runs.includes(run)) throw new Error('wrong in run ' + run); };
`;

/** Runs the test runner on files in a new folder, and interrupts it when a file `ready` exists there. */
async function runTests(
  t: TestContext,
  files: Readonly<Record<string, string>>,
  args: readonly string[] = [],
  { isInterrupted = false } = {},
) {
  const folder = tempFolder(t);
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(folder, name), countingPrefix + text);
  }
  const summary = join(folder, 'summary');
  const temp = tempFolder(t);
  const { PATH = '', HOME = '', TEST_POSTGRES_URL = '' } = process.env;
  const child = spawn(process.execPath, [runner, '--in', folder, ...args], {
    env: { PATH, HOME, TEST_POSTGRES_URL, TEST_SUMMARY: summary, TMPDIR: temp },
  });
  child.stdin.end();
  const end = waitForExit(child);
  if (isInterrupted) {
    await until(() => existsSync(join(folder, 'ready')));
    child.kill('SIGINT');
  }
  const { code, out, err } = await end;
  return {
    folder,
    // tsx keeps its cache there.
    temporaryFiles: readdirSync(temp).filter((name) => !name.startsWith('tsx-')),
    code,
    out,
    err,
    summary: existsSync(summary) ? readFileSync(summary, 'utf8') : undefined,
    countRuns: (name: string) => readFileSync(join(folder, `${name}.runs`)).length,
  };
}

test('a failure that does not recur is listed as flaky, and the run passes', async (t) => {
  const { code, out, summary, countRuns } = await runTests(t, {
    'fine.test.ts': `test('is fine', () => {});`,
    'unsteady.test.ts': `
      test('is unsteady', (t) => { t.diagnostic('SEED=17'); failIn(1); });
      test('is fine, too', () => {});`,
    'crash.test.ts': `test('is not reached', () => {}); if (run === 1) process.exit(3);`,
  });

  assert.equal(code, 0, out);
  assert.match(
    summary ?? '',
    /^FLAKY\n.*crash\.test\.ts: the whole file\n {4}ended with exit code 3\n/,
  );
  assert.match(
    summary ?? '',
    /unsteady\.test\.ts: is unsteady\n {4}Error: wrong in run 1\n[\s\S]* {4}seed: SEED=17\n$/,
  );
  assert.ok(out.endsWith(summary ?? ''), out);
  assert.deepEqual(
    ['crash', 'unsteady', 'fine'].map((name) => countRuns(`${name}.test.ts`)),
    [3, 3, 1],
  );
  assert.match(out, /slowest files:\n( +\d+\.\d s {2}\S+\.test\.ts\n){3}/);
});

test('the run fails when a failure recurs, is in a seeded test, or is skipped in the retry', async (t) => {
  const {
    code,
    out,
    summary = '',
    countRuns,
  } = await runTests(t, {
    'always.test.ts': `test('is wrong', () => failIn(1, 2, 3));`,
    'later.test.ts': `test('is wrong again', () => failIn(1, 3));`,
    'skipped.test.ts': `test('is skipped then', { skip: run > 1 }, () => failIn(1));`,
    'any.race.test.ts': `console.log('SEED=4711'); test('loses a race', () => failIn(1));`,
    'any.fuzz.test.ts': `test('finds an input', () => failIn(1));`,
    'property.test.ts': `
      const { default: fc } = await import(${fastCheck});
      test('has a counterexample', () => fc.assert(fc.property(fc.nat(), () => failIn(1))));`,
    'unsteady.test.ts': `test('is unsteady', () => failIn(1));`,
  });

  assert.equal(code, 1, out);
  const entry = (text: string) => new RegExp(`^\\S*${text}$`, 'm');
  for (const [name, reason, runs] of [
    ['always.test.ts: is wrong', 'failed again in retry 1, alone', 2],
    ['later.test.ts: is wrong again', 'failed again in retry 2, alone', 3],
    ['skipped.test.ts: is skipped then', 'failed again in retry 1, alone', 2],
    ['any.race.test.ts: loses a race', 'not retried: a seeded test', 1],
    ['any.fuzz.test.ts: finds an input', 'not retried: a seeded test', 1],
    ['property.test.ts: has a counterexample', 'not retried: a property test', 1],
  ] as const) {
    assert.match(summary, entry(`${name}\n(?: {4}.*\n)* {4}${reason}`));
    assert.equal(countRuns(name.split(':')[0] ?? ''), runs, name);
  }
  assert.match(summary, /^FAILED\n/);
  assert.match(summary, /SEED=4711/);
  assert.match(summary, /\{ seed: -?\d+, /);
  assert.match(summary, /\nFLAKY\n\S*unsteady\.test\.ts: is unsteady\n/);
  assert.ok(out.endsWith(summary), out);
});

// Each test waits for its limit.
describe('time limits', { concurrency: true }, () => {
  test('a test file that hangs is ended and retried', async (t) => {
    const hang = `test('hangs', () => run > 1 || new Promise(() => setInterval(() => {}, 1000)));`;

    const {
      code,
      out,
      summary = '',
    } = await runTests(t, { 'hang.test.ts': hang }, ['--file-minutes=0.2']);

    assert.equal(code, 0, out);
    assert.match(summary, /^FLAKY\n/);
    assert.match(summary, /hang\.test\.ts: (the whole file|hangs)\n {4}test timed out/);
  });

  test('a run over its time limit is ended', async (t) => {
    const hang = `test('hangs', () => new Promise(() => setInterval(() => {}, 1000)));`;

    const { code, err, summary } = await runTests(t, { 'hang.test.ts': hang }, [
      '--minutes',
      '0.1',
    ]);

    assert.equal(code, 1);
    assert.equal(err, 'Cannot finish: the tests take longer than 0.1 minutes\n');
    assert.match(summary ?? '', /^FAILED: a signal ended the tests, before \S/);
  });
});

test('an interrupted run lists the files that did not finish, and removes the temporary files of its tests', async (t) => {
  const hang = `
    const { mkdtempSync, writeFileSync } = await import('node:fs');
    const { tmpdir } = await import('node:os');
    writeFileSync(import.meta.dirname + '/ready', mkdtempSync(tmpdir() + '/herald-'));
    test('hangs', () => new Promise(() => setInterval(() => {}, 1000)));`;

  const { folder, code, out, temporaryFiles } = await runTests(t, { 'hang.test.ts': hang }, [], {
    isInterrupted: true,
  });

  assert.equal(code, 1);
  // The signal also reaches the test file, which may end before the run does. It is then listed as a failure.
  const unfinished = /^FAILED: a signal ended the tests, before \S+hang\.test\.ts$/m;
  const ended = /^\S+hang\.test\.ts: the whole file\n {4}ended by SIGINT$/m;
  assert.ok(unfinished.test(out) || ended.test(out), out);
  assert.equal(existsSync(readFileSync(join(folder, 'ready'), 'utf8')), false);
  assert.deepEqual(temporaryFiles, []);
});

const server = await findServer('postgres');

test('postgres: an interrupted run drops the databases of its tests', {
  skip: typeof server === 'string' ? server : false,
}, async (t) => {
  if (typeof server === 'string') return;
  const hang = `
    const { writeFileSync } = await import('node:fs');
    const { findServer } = await import(${testServer});
    const { administer, options } = await findServer('postgres');
    await administer('create database ' + options.database);
    writeFileSync(import.meta.dirname + '/ready', options.database);
    test('hangs', () => new Promise(() => setInterval(() => {}, 1000)));`;

  const { folder } = await runTests(t, { 'hang.test.ts': hang }, [], { isInterrupted: true });

  const database = readFileSync(join(folder, 'ready'), 'utf8');
  await assert.rejects(server.administer(`drop database ${database}`), /does not exist/);
});

test('when more than ten files fail, none is retried', async (t) => {
  const names = Array.from({ length: 11 }, (_, index) => `${index}.test.ts`);
  const files = Object.fromEntries(names.map((name) => [name, `failIn(1);`]));

  const { code, summary = '', countRuns } = await runTests(t, files);

  assert.equal(code, 1);
  assert.equal(summary.match(/not retried: 11 files failed/g)?.length, 11);
  assert.deepEqual([...new Set(names.map(countRuns))], [1]);
});

const mixedFiles = {
  'mixed.test.ts': `
    test('an odd method', () => {});
    test('a wrong method', () => failIn(1, 2, 3));`,
};
const selections = [
  ['--test-name-pattern', 'odd method'],
  ['--test-name-pattern=odd method'],
  ['--test-name-pattern', 'odd', '--test-reporter', 'tap', '--test-concurrency', '1'],
  ['mixed', '--test-name-pattern', 'odd method', '--without', 'even', '--minutes=1'],
];

for (const args of selections) {
  test(`npm test with ${args.join(' ')} runs only the selected test`, async (t) => {
    const { code, out, summary, countRuns } = await runTests(t, mixedFiles, args);

    assert.equal(code, 0, out);
    assert.match(out, /an odd method/);
    assert.equal(countRuns('mixed.test.ts'), 1);
    assert.equal(summary, '');
    assert.doesNotMatch(out, /secrets/);
  });
}

for (const args of [['--help'], ['races', '--minutes', '600', '--help']]) {
  test(`npm test with ${args.join(' ')} prints the runner's own help and runs nothing`, async (t) => {
    const { code, out, err } = await runTests(t, mixedFiles, args);

    assert.deepEqual([code, err], [0, '']);
    assert.match(out, /^Usage: npm test -- /);
    for (const word of ['smoke', 'races', '--without', '--in', '--file-minutes', 'SEED', 'RACES']) {
      assert.ok(out.includes(word), word);
    }
    assert.ok(out.split('\n').length < 50);
  });
}

test('without installed packages, npm test says that npm ci is needed', async (t) => {
  const folder = tempFolder(t);
  for (const name of ['run.mjs', 'run.test.ts', 'runner']) {
    cpSync(join(root, 'test', name), join(folder, 'test', name), { recursive: true });
  }
  const child = spawn(process.execPath, [join(folder, 'test/run.mjs'), '--in', 'test'], {
    env: { TMPDIR: folder },
  });
  child.stdin.end();

  const { code, out, err } = await waitForExit(child);

  const message = 'Cannot run tests: packages are not installed; run: npm ci\n';
  assert.deepEqual([code, out, err], [1, '', message]);
});

const pathRule = 'Cannot run tests: a filter is a part of the path, no patterns or line numbers';
const refusals = [
  [['--test-name-pattern'], 'Cannot run tests: --test-name-pattern needs a value\n'],
  [['--without'], 'Cannot run tests: --without needs a value\n'],
  [['--minutes', 'many'], 'Cannot run tests: --minutes needs a positive number\n'],
  [['mixed', '--test-name-pattern', 'zzz'], 'Cannot run tests: no test has zzz in its name\n'],
  [['src/*.ts'], `${pathRule}: src/*.ts\n`],
  [['mixed.test.ts:12'], `${pathRule}: mixed.test.ts:12\n`],
  [['--without', '{a,b}'], `${pathRule}: {a,b}\n`],
  [['./src/no-such'], 'Cannot run tests: no file has src/no-such in its path\n'],
  [[join(root, 'src/no-such')], 'Cannot run tests: no file has src/no-such in its path\n'],
  [['nowhere'], 'Cannot run tests: no file has nowhere in its path\n'],
  [['--without', 'mixed'], 'Cannot run tests: no file is left\n'],
] as const;

for (const [args, message] of refusals) {
  test(
    `npm test with ${args.join(' ')} is rejected: ${message.trim()}`.replace(root, ''),
    async (t) => {
      const { code, err, out } = await runTests(t, mixedFiles, args);

      assert.deepEqual([code, err], [1, message]);
      // Node 26 reports a file in which no test ran as passed.
      assert.doesNotMatch(out, /✔ (?!\S+\.test\.ts )|secrets/);
    },
  );
}
