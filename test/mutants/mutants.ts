import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A small fault in the source, and the test that must detect it. */
export interface Mutant {
  /** Description of the fault. */
  readonly name: string;
  /** The source file, such as `src/auth/attempt-limiter.ts`. */
  readonly file: string;
  /** Exact text that occurs once in the file. */
  readonly before: string;
  /** Replacement of `before`; may be empty. */
  readonly after: string;
  /** The test file. */
  readonly test: string;
  /** Part of the name of the test, as in the source file: without the values of a template literal. */
  readonly testName: string;
}

/** Mutants of one data file. */
export interface MutantFile {
  /** The folder of `src` that the mutants are in, or `src` for files directly in it. */
  readonly folder: string;
  readonly mutants: readonly Mutant[];
}

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** Reads every `test/mutants/*.json`. */
export function readMutantFiles(): MutantFile[] {
  const data = join(root, 'test/mutants');
  return readdirSync(data)
    .filter((file) => file.endsWith('.json'))
    .sort()
    .map((file) => ({
      folder: basename(file, '.json'),
      mutants: JSON.parse(readFileSync(join(data, file), 'utf8')) as Mutant[],
    }));
}

/** Returns the text with the fault applied. Throws an Error unless `before` is found exactly once. */
export function applyMutant({ before, after }: Mutant, text: string): string {
  const count = before === '' ? 0 : text.split(before).length - 1;
  if (count !== 1) throw new Error(`its "before" is found ${count} times instead of once`);
  return text.replace(before, () => after);
}
