import { type Database, type Sql, sql } from '../../db/database.js';
import type { AppendRequest } from '../log-store.js';

/** API keys, as the log checks them. Their table is not the log's, so their SQL is handed in. */
export interface PublisherKeys {
  /** A condition that holds while none of these keys is revoked. One key at least. */
  areActive(keyIds: readonly string[]): Sql;
  /** Which of these keys are not revoked. One key at least. */
  findActive(db: Database, keyIds: readonly string[]): Promise<readonly string[]>;
}

export const noPublisherKeys: PublisherKeys = {
  areActive: () => sql`1 = 1`,
  findActive: async (_, keyIds) => keyIds,
};

/** The keys of these requests, each once. */
export function getKeyIds(requests: readonly AppendRequest[]): string[] {
  return [...new Set(requests.flatMap(({ keyId }) => keyId ?? []))];
}
