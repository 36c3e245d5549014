import { createHash } from 'node:crypto';
import { type Database, list, sql, tuples } from '../../db/database.js';
import type { Audience } from '../../events/audience.js';

/** Of the log as it was before this was kept: any audience may have lost something up to there. */
const wildcardBucket = -1;
/**
 * Audiences come without end, buckets do not: who shares one may be told of a loss that was another's,
 * and never the other way round. With 10,000 audiences that is one reader in fifty.
 */
const bucketCount = 1_048_576;
const rowsPerStatement = 1000;

/** The newest event of each audience among those that are being trimmed. */
export interface TrimmedAudience {
  readonly audience: Audience;
  readonly seq: number;
}

/** Notes what is being trimmed, in the transaction that does it. All of it is newer than before. */
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

/** The newest event for any of these audiences that was trimmed, or a newer one; 0 if none was. */
export async function lastTrimmed(db: Database, audiences: readonly Audience[]): Promise<number> {
  const keys = list([wildcardBucket, ...audiences.map(getBucket)]);
  const rows = await db.query<{ seq: number }>(
    sql`select seq from trimmed_audiences where bucket in (${keys})`,
  );
  return Math.max(0, ...rows.map(({ seq }) => seq));
}

function getBucket(audience: Audience): number {
  return createHash('sha256').update(audience).digest().readUInt32BE(0) % bucketCount;
}
