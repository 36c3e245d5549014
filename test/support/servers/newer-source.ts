import { appendFileSync, cpSync, existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Migration } from '../../../src/db/migrations/migration.js';
import { sourceRoot } from './process.js';

/** Changes of the schema that a release may make while processes of the previous release use the database. */
const expandingStep: Omit<Migration, 'version'> = {
  name: 'expand',
  statements: [
    'alter table sessions add column expanded int',
    'alter table stream_tokens add column expanded int',
    'alter table events add column expanded int not null default 0',
    'create table if not exists expanded (id int not null primary key)',
    'create index sessions_expanded on sessions (expanded)',
  ],
};

/**
 * Copies the source of this repository, with one migration appended to the list of each dialect, and returns the
 * folder of the copy. It is removed after the test.
 */
export function copySourceWithExtraMigration(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'herald-newer-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const entry of ['src', 'fixtures', 'package.json', 'tsconfig.json']) {
    cpSync(join(sourceRoot, entry), join(folder, entry), { recursive: true, dereference: true });
  }
  symlinkSync(join(sourceRoot, 'node_modules'), join(folder, 'node_modules'));
  // Dialects may share a list. Each list gets the step once. Neither tsx nor the build checks the types.
  const appendExtraMigration = `
for (const list of new Set(Object.values(migrationsByDialect))) {
  list.push({ version: list.length + 1, ...${JSON.stringify(expandingStep)} });
}
`;
  const list = join(folder, 'src/db/migrations/list');
  appendFileSync(existsSync(`${list}.js`) ? `${list}.js` : `${list}.ts`, appendExtraMigration);
  return folder;
}
