import { createHash } from 'node:crypto';

/**
 * A forward-only step of the schema. Must not change once released: every database that it was
 * applied to holds its checksum.
 */
export interface Migration {
  /** Counts up from 1. */
  readonly version: number;
  readonly name: string;
  /**
   * Single statements. On MariaDB and MySQL each must be idempotent (`if not exists`): the server
   * commits each one separately, so after a crash the last one started runs again.
   */
  readonly statements: readonly string[];
}

/** Returns the SHA-256 of the statements in hex. */
export function computeChecksum({ statements }: Migration): string {
  return createHash('sha256').update(JSON.stringify(statements)).digest('hex');
}
