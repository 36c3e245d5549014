import { createHash } from 'node:crypto';
import { type Database, list, sql, tuples } from '../../db/database.js';
import type { Audience } from '../../events/audience.js';

/** Bucket of the events that were trimmed before this table existed. They may be for any audience. */
const wildcardBucket = -1;
/**
 * The number of users and sessions is unlimited, so their audiences are hashed into buckets. A reader whose audience
 * shares a bucket may get `too_old` although it lost nothing (with 10,000 audiences about one
 * reader in fifty), but a reader that lost an event always gets `too_old`.
 */
const bucketCount = 1_048_576;
const rowsPerStatement = 1000;

/** The newest event for one audience, which is not a topic, among the events that are being trimmed. */
export interface TrimmedAudience {
  readonly audience: Audience;
  readonly seq: number;
}

/**
 * Records the newest trimmed event of each audience. Call it in the transaction that trims; every
 * `seq` must be newer than those recorded before, or the transaction must be rolled back.
 */
export async function recordTrimmed(
  tx: Database,
  trimmed: readonly TrimmedAudience[],
): Promise<void> {
  const newest = new Map<number, number>();
  for (const { audience, seq } of trimmed) {
    const bucket = getBucket(audience);
    newest.set(bucket, Math.max(seq, newest.get(bucket) ?? 0));
  }
  const rows = [...newest];
  for (let index = 0; index < rows.length; index += rowsPerStatement) {
    const batch = rows.slice(index, index + rowsPerStatement);
    const keys = list(batch.map(([bucket]) => bucket));
    await tx.execute(sql`delete from trimmed_audiences where bucket in (${keys})`);
    await tx.execute(sql`insert into trimmed_audiences (bucket, seq) values ${tuples(batch)}`);
  }
}

/**
 * Returns the number of the newest trimmed event for any of these audiences, or a higher number
 * (see `bucketCount`); 0 if none was trimmed.
 */
export async function findLastTrimmedSeqOfAudiences(
  db: Database,
  audiences: readonly Audience[],
): Promise<number> {
  const keys = list([wildcardBucket, ...audiences.map(getBucket)]);
  const rows = await db.query<{ seq: number }>(
    sql`select seq from trimmed_audiences where bucket in (${keys})`,
  );
  return Math.max(0, ...rows.map(({ seq }) => seq));
}

function getBucket(audience: Audience): number {
  return createHash('sha256').update(audience).digest().readUInt32BE(0) % bucketCount;
}
