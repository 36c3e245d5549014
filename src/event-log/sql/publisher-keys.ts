import { type Database, type Sql, sql } from '../../db/database.js';
import type { AppendRequest } from '../log-store.js';

/**
 * Checks the API keys of publishers. The owner of the table of API keys supplies the SQL, because the
 * event log does not know that table.
 */
export interface PublisherKeys {
  /** Returns an SQL condition: true if none of these keys is revoked. Needs at least one key. */
  areActive(keyIds: readonly string[]): Sql;
  /** Returns those of these keys that are not revoked. Needs at least one key. */
  findActive(db: Database, keyIds: readonly string[]): Promise<readonly string[]>;
}

/** Treats every key as active, for event logs without API keys. */
export const noPublisherKeys: PublisherKeys = {
  areActive: () => sql`1 = 1`,
  findActive: async (_, keyIds) => keyIds,
};

/** Returns the ids of the API keys of these requests, each once. */
export function getKeyIds(requests: readonly AppendRequest[]): string[] {
  return [...new Set(requests.flatMap(({ keyId }) => keyId ?? []))];
}
