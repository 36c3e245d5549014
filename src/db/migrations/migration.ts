import { createHash } from 'node:crypto';

/**
 * A forward-only step of the schema. Must not change once released: every database that it was
 * applied to holds its checksum.
 *
 * A program that knows only the steps before it must work on the schema after it, because both run
 * beside each other during an upgrade: add first, remove one step later
 * (`docs/decisions/022-migrations-expand-then-contract.md`).
 */
export interface Migration {
  /** Counts up from 1. */
  readonly version: number;
  readonly name: string;
  /**
   * Single statements. On MariaDB and MySQL each must bear to run twice (`if not exists`; an
   * `add column` of a column that exists is skipped): they commit every one by itself, so after a
   * crash the last one started is run again.
   */
  readonly statements: readonly string[];
}

/** Returns the newest version of a list; 0: the list is empty. */
export function getLatestVersion(migrations: readonly Migration[]): number {
  return migrations.at(-1)?.version ?? 0;
}

/** Returns the SHA-256 of the statements in hex. */
export function computeChecksum({ statements }: Migration): string {
  return createHash('sha256').update(JSON.stringify(statements)).digest('hex');
}
