import { createHash } from 'node:crypto';
import { type Database, inserts, list, type Sql, sql } from '../../db/database.js';
import type { AppendRequest } from '../log-store.js';

/** The events that were appended under one idempotency key. Their sequence numbers are consecutive. */
export interface PriorAppend {
  readonly bodyHash: string;
  readonly firstSeq: number;
  readonly eventCount: number;
}

/** Earlier appends, by the hash of their idempotency key. */
export type PriorAppends = ReadonlyMap<string, PriorAppend>;

interface Row {
  readonly key_hash: string;
  readonly body_hash: string;
  readonly first_seq: number;
  readonly event_count: number;
}

const keyLifeMs = 24 * 60 * 60 * 1000;

/**
 * Returns the SHA-256 under which an idempotency key is stored. It includes the id of the API key, so that
 * two API keys never share an idempotency key.
 */
export function hashIdempotencyKey(keyId: string | undefined, key: string): string {
  return createHash('sha256').update(`${keyId}\n${key}`).digest('hex');
}

/**
 * Returns the appends of the last 24 hours that used the idempotency keys of these requests. Deletes
 * the rows of these keys that have expired. Call it in the transaction that appends. With
 * `locksHeadFirst`, no other transaction can commit a key between the read of the keys and the commit.
 */
export async function findPriorAppends(
  tx: Database,
  requests: readonly AppendRequest[],
  { now, locksHeadFirst }: { now: number; locksHeadFirst: boolean },
): Promise<PriorAppends> {
  const hashes = requests.flatMap(({ events, idempotency, publisher }) =>
    [idempotency, ...events.map((event) => event.idempotency)].flatMap((used) =>
      used === undefined ? [] : hashIdempotencyKey(publisher?.keyId, used.key),
    ),
  );
  if (hashes.length === 0) return new Map();
  const keys = list(hashes);
  await tx.execute(
    sql`delete from idempotency where key_hash in (${keys}) and expires_at <= ${now}`,
  );
  if (locksHeadFirst) await tx.execute(sql`update log_head set seq = seq where id = 1`);
  const rows = await tx.query<Row>(
    sql`select key_hash, body_hash, first_seq, event_count from idempotency
      where key_hash in (${keys})`,
  );
  return new Map(
    rows.map(({ key_hash, body_hash: bodyHash, first_seq: firstSeq, event_count: eventCount }) => [
      key_hash,
      { bodyHash, firstSeq, eventCount },
    ]),
  );
}

/**
 * Builds the inserts that store keys for 24 hours. A `UniqueViolation` means that a concurrent request
 * used the same key.
 */
export function buildKeyInserts(keys: ReadonlyMap<string, PriorAppend>, now: number): Sql[] {
  return inserts(
    sql`insert into idempotency (key_hash, body_hash, first_seq, event_count, expires_at) values `,
    [...keys].map(([keyHash, { bodyHash, firstSeq, eventCount }]) => {
      return [keyHash, bodyHash, firstSeq, eventCount, now + keyLifeMs];
    }),
  );
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
