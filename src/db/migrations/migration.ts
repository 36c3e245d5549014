import { createHash } from 'node:crypto';

/**
 * A forward-only step of the schema. A released step must not change, because every database to which it was
 * applied contains its checksum.
 *
 * A program that knows only the earlier steps must also work after this step, because programs of both
 * versions run at the same time during an upgrade. So a step must not remove what these programs use: add in
 * one step, and remove in a later step (`docs/decisions/022-migrations-expand-then-contract.md`).
 */
export interface Migration {
  /** Counts up from 1. */
  readonly version: number;
  readonly name: string;
  /**
   * Single statements. On MariaDB and MySQL each must be idempotent (`if not exists`; an `add column` of
   * an existing column is skipped), because these dialects commit each statement separately: after a crash
   * the statement that was started last is run again.
   */
  readonly statements: readonly string[];
}

/** Returns the newest version of a list, or 0 if the list is empty. */
export function getLatestVersion(migrations: readonly Migration[]): number {
  return migrations.at(-1)?.version ?? 0;
}

/** Returns the SHA-256 of the statements in hex. */
export function computeChecksum({ statements }: Migration): string {
  return createHash('sha256').update(JSON.stringify(statements)).digest('hex');
}
