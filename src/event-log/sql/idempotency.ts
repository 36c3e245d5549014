import { type Database, list, type Sql, sql } from '../../db/database.js';
import type { AppendOutcome, AppendRequest } from '../log-store.js';

interface Row {
  readonly key_hash: string;
  readonly body_hash: string;
  readonly first_seq: number;
  readonly event_count: number;
}

/** Earlier appends by the hash of their idempotency key. */
export type PriorAppends = ReadonlyMap<string, Row>;

const keyLifeMs = 24 * 60 * 60 * 1000;

/**
 * Returns the appends of the last 24 hours that used the idempotency keys of these requests, and
 * deletes those of the keys that have expired. Call it in the transaction that appends.
 */
export async function findPriorAppends(
  tx: Database,
  requests: readonly AppendRequest[],
  now: number,
): Promise<PriorAppends> {
  const hashes = requests.flatMap(({ idempotency: key }) =>
    key === undefined ? [] : [key.keyHash],
  );
  if (hashes.length === 0) return new Map();
  const keys = list(hashes);
  await tx.execute(
    sql`delete from idempotency where key_hash in (${keys}) and expires_at <= ${now}`,
  );
  const rows = await tx.query<Row>(
    sql`select key_hash, body_hash, first_seq, event_count from idempotency
      where key_hash in (${keys})`,
  );
  return new Map(rows.map((row) => [row.key_hash, row]));
}

/** Returns the outcome of a request whose key was used before; undefined for a new request. */
export function findPriorOutcome(
  priorAppends: PriorAppends,
  { idempotency: key, events }: AppendRequest,
): AppendOutcome | undefined {
  const prior = key && priorAppends.get(key.keyHash);
  if (prior === undefined) return undefined;
  const isSame = prior.body_hash === key?.bodyHash && prior.event_count === events.length;
  return { kind: isSame ? 'repeated' : 'conflict', firstSeq: prior.first_seq };
}

/**
 * Builds the inserts that store the key of a request for 24 hours; none for a request without a
 * key. A `UniqueViolation` means that a concurrent request used the same key.
 */
export function buildKeyInserts(
  { idempotency: key, events }: AppendRequest,
  firstSeq: number,
  now: number,
): Sql[] {
  if (key === undefined) return [];
  return [
    sql`insert into idempotency (key_hash, body_hash, first_seq, event_count, expires_at)
      values (${key.keyHash}, ${key.bodyHash}, ${firstSeq}, ${events.length}, ${now + keyLifeMs})`,
  ];
}

/** Deletes up to 500 expired keys and returns how many were deleted. */
export async function sweepIdempotencyKeys(db: Database, now: number): Promise<number> {
  const rows = await db.query<{ key_hash: string }>(
    sql`select key_hash from idempotency where expires_at <= ${now} limit 500`,
  );
  if (rows.length === 0) return 0;
  const keys = list(rows.map((row) => row.key_hash));
  // A key may have been used again since it was read.
  return db.execute(
    sql`delete from idempotency where key_hash in (${keys}) and expires_at <= ${now}`,
  );
}
