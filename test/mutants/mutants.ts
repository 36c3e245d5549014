import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A small fault in the source, and the test that must fail because of it. */
export interface Mutant {
  /** What is broken. */
  readonly name: string;
  /** The source file, as `src/auth/attempt-limiter.ts`. */
  readonly file: string;
  /** Exact text, found once in the file. */
  readonly before: string;
  /** What replaces it; may be empty. */
  readonly after: string;
  /** The test file. */
  readonly test: string;
  /** Part of the test's name, without what a template literal fills in. */
  readonly testName: string;
}

/** The mutants of one data file. */
export interface MutantFile {
  /** The folder below `src` that its mutants are in, or `src` for the files beside the folders. */
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

/** Returns the text with the fault in it. Throws an Error unless `before` is found exactly once. */
export function applyMutant({ before, after }: Mutant, text: string): string {
  const count = before === '' ? 0 : text.split(before).length - 1;
  if (count !== 1) throw new Error(`its "before" is found ${count} times instead of once`);
  return text.replace(before, () => after);
}
