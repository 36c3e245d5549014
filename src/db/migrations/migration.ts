import { createHash } from 'node:crypto';

/**
 * One step of the schema, forward only. Once released it never changes: its checksum is in every
 * database it was applied to.
 */
export interface Migration {
  /** Counts up from 1. */
  readonly version: number;
  readonly name: string;
  /**
   * Single statements. On MariaDB and MySQL each must bear to run twice (`if not exists`): they
   * commit every one by itself, so after a crash the last one started is run again.
   */
  readonly statements: readonly string[];
}

/** SHA-256 in hex of the statements. */
export function computeChecksum({ statements }: Migration): string {
  return createHash('sha256').update(JSON.stringify(statements)).digest('hex');
}
