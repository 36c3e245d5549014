import { type Database, type Sql, sql } from '../../db/database.js';
import type { KeyRefusal, Publisher } from '../log-store.js';

/**
 * Checks the API keys of publishers at the time `now`, epoch ms. The owner of the table of API keys supplies
 * the SQL, because the event log does not know that table.
 */
export interface PublisherKeys {
  /** Returns an SQL condition: true if none of these publishers is refused. Needs at least one. */
  mayPublish(publishers: readonly Publisher[], now: number): Sql;
  /** Returns the reason of refusal for each publisher; undefined for an accepted one. Needs at least one. */
  findRefusals(
    db: Database,
    publishers: readonly Publisher[],
    now: number,
  ): Promise<readonly (KeyRefusal | undefined)[]>;
}

/** Refuses no publisher, for event logs without API keys. */
export const noPublisherKeys: PublisherKeys = {
  mayPublish: () => sql`1 = 1`,
  findRefusals: async (_, publishers) => publishers.map(() => undefined),
};
