import { type Database, inserts, list, sql } from '../../db/database.js';
import type { AppendControlEntries } from '../../event-log/open.js';
import { membersChanged, type TopicUsers } from '../../events/control-entry.js';
import { inStatements, storeLoss, transactionOfUsers } from './user-locks.js';

export interface RevocationsOptions {
  readonly db: Database;
  readonly wallClock: () => number;
  readonly appendControlEntries: AppendControlEntries;
}

const dayMs = 86_400_000;
/** Longer than the life of any ticket, which is at most 30 days. */
const storedMs = 31 * dayMs;
const sweptMax = 500;

/**
 * Revokes topics: ends the memberships and the chosen topics of users, and voids the rights to the topic that stream
 * tokens were granted before. These are found by number: a token stores the newest entry before its rights were read.
 */
export class Revocations {
  readonly #options: RevocationsOptions;

  constructor(options: RevocationsOptions) {
    this.#options = options;
  }

  /**
   * Revokes a topic for users, each of whom occurs once, and returns the number of the last entry. It is a loss also for
   * users who had no row, because a token that is being minted may give them one.
   */
  revoke({ topic, userIds }: TopicUsers): Promise<number> {
    const { db, wallClock, appendControlEntries } = this.#options;
    return transactionOfUsers(db, userIds, async (tx) => {
      for (const batch of inStatements(userIds)) await deleteRows(tx, topic, batch);
      const entries = membersChanged('topic_revoked', { topic, userIds });
      const lastSeq = await appendControlEntries(tx, entries);
      // Publishers wait from here on, so all statements are sent together.
      const now = wallClock();
      const rows: (string | number)[][] = [];
      const writes: Promise<unknown>[] = [];
      for (const [index, entry] of entries.entries()) {
        const seq = lastSeq - entries.length + 1 + index;
        const { userIds: ofEntry } = 'members' in entry ? entry.members : { userIds: [] };
        writes.push(storeLoss(tx, ofEntry, seq));
        for (const userId of ofEntry) rows.push([userId, topic, seq, now]);
      }
      for (const insert of inserts(insertRevocations, rows)) writes.push(tx.execute(insert));
      await Promise.all(writes);
      return lastSeq;
    });
  }

  /**
   * Deletes up to 500 revocations that no longer have an effect, and returns how many: they are older than 31 days, and
   * no stream token of the user has older rights. For a timer.
   */
  async sweep(): Promise<number> {
    const { db: requestDb, wallClock } = this.#options;
    const db = requestDb.background ?? requestDb;
    const rows = await db.query<{ user_id: string; topic: string; seq: number }>(
      sql`select user_id, topic, seq from topic_revocations revoked
        where created_at < ${wallClock() - storedMs} and not exists (
          select 1 from stream_tokens token
          where token.subject = revoked.user_id and coalesce(token.rights_seq, 0) < revoked.seq)
        order by created_at limit ${sweptMax}`,
    );
    let count = 0;
    for (const { user_id: userId, topic, seq } of rows)
      count += await db.execute(
        sql`delete from topic_revocations
          where user_id = ${userId} and topic = ${topic} and seq = ${seq}`,
      );
    return count;
  }
}

const insertRevocations = sql`insert into topic_revocations (user_id, topic, seq, created_at) values `;

/** Deletes the memberships, the chosen topics, and earlier revocations of the topic. */
async function deleteRows(tx: Database, topic: string, userIds: readonly string[]): Promise<void> {
  const ids = list(userIds);
  await tx.execute(sql`delete from topic_members where topic = ${topic} and user_id in (${ids})`);
  await tx.execute(
    sql`delete from topic_revocations where topic = ${topic} and user_id in (${ids})`,
  );
  const tokens = await tx.query<{ token_hash: string }>(
    sql`select chosen.token_hash from token_topics chosen
        join stream_tokens token on token.token_hash = chosen.token_hash
      where token.subject in (${ids}) and chosen.topic = ${topic} order by chosen.token_hash`,
  );
  // Those that are chosen from now on, with a right that this revocation voids, do not count.
  for (const batch of inStatements(tokens.map((row) => row.token_hash)))
    await tx.execute(
      sql`delete from token_topics where topic = ${topic} and token_hash in (${list(batch)})`,
    );
}
