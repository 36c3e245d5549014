import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ServerDialect } from './test-server.js';

/** The folder of one run of the test runner, which removes it. */
const runFolder = process.env['HERALD_TEST_TEMP'];

/**
 * Creates the data of a new database server: copies the data that an earlier test file of the run has created, or
 * calls `create`, which takes seconds. Without the test runner it always calls `create`.
 */
export function createData(dialect: ServerDialect, data: string, create: () => void): void {
  const template = runFolder && join(runFolder, `${dialect}-data`);
  if (template === undefined) create();
  else if (existsSync(template)) copy(template, data);
  else {
    create();
    keep(data, template);
  }
}

/** Copies the data to the template, which no other test file sees before it is complete. */
function keep(data: string, template: string): void {
  const folder = mkdtempSync(`${template}-`);
  copy(data, join(folder, 'data'));
  try {
    renameSync(join(folder, 'data'), template);
  } catch {
    // Another test file has created it meanwhile.
  }
  rmSync(folder, { recursive: true, force: true });
}

/** Keeps owners and modes, because database servers check them. */
function copy(from: string, to: string): void {
  execFileSync('cp', ['-a', from, to], { stdio: 'pipe' });
}
