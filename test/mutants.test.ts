import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { applyMutant, type Mutant, readMutantFiles, root } from './mutants/mutants.js';

const files = readMutantFiles();
const mutants = files.flatMap((file) => file.mutants);
const fields = ['name', 'file', 'before', 'after', 'test', 'testName'];

test('the mutant files are found', () => {
  assert.ok(
    files.some(
      ({ folder, mutants: folderMutants }) => folder === 'auth' && folderMutants.length > 0,
    ),
  );
});

test('a mutant has exactly the required fields, all of them strings', () => {
  const invalid = mutants.filter(
    (mutant) =>
      Object.keys(mutant).join() !== fields.join() ||
      Object.values(mutant).some((value) => typeof value !== 'string'),
  );

  assert.deepEqual(invalid, []);
});

test('no two mutants have the same name', () => {
  const names = mutants.map(({ name }) => name);

  assert.deepEqual([...new Set(names)], names);
});

test('a mutant is in the data file of its folder', () => {
  const misplaced = files.flatMap(({ folder, mutants: folderMutants }) => {
    const expected = folder === 'src' ? /^src\/[^/]+\.ts$/ : new RegExp(`^src/${folder}/.+\\.ts$`);
    return folderMutants.filter(({ file }) => !expected.test(file)).map(({ name }) => name);
  });

  assert.deepEqual(misplaced, []);
});

test('every mutant changes its source file in exactly one place', () => {
  assert.deepEqual(mutants.flatMap(findProblems), []);
});

test('the test of every mutant exists', () => {
  const withoutTest = mutants.filter(
    ({ test: file, testName }) => testName === '' || !readText(file).includes(testName),
  );

  assert.deepEqual(
    withoutTest.map(({ name, test: file, testName }) => `${name}: no "${testName}" in ${file}`),
    [],
  );
});

test('a mutant whose text occurs twice or never is rejected', () => {
  const mutant = { name: '', file: '', before: 'a', after: '$&', test: '', testName: '' };

  assert.equal(applyMutant(mutant, 'bab'), 'b$&b');
  for (const text of ['', 'b', 'aba']) assert.throws(() => applyMutant(mutant, text), /found/);
  assert.throws(() => applyMutant({ ...mutant, before: '' }, 'a'), /found 0 times/);
});

function findProblems(mutant: Mutant): string[] {
  const { name, file } = mutant;
  if (!existsSync(join(root, file))) return [`${name}: there is no ${file}`];
  try {
    const text = readText(file);
    return applyMutant(mutant, text) === text ? [`${name}: changes nothing`] : [];
  } catch (error) {
    return [`${name}: ${error instanceof Error ? error.message : String(error)} in ${file}`];
  }
}

/** Returns the text of a file, empty when it does not exist. */
function readText(file: string): string {
  const path = join(root, file);
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
