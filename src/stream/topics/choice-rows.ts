import { type Database, inserts, list, type Sql, sql } from '../../db/database.js';

/** A row of the table `token_topics`: a topic that was chosen for a stream token. */
export interface ChoiceRow {
  readonly tokenHash: string;
  readonly topic: string;
  /** The streams of the token receive events of the topic with higher numbers. */
  readonly since: number;
}

/** Topics of a token. */
export interface TopicsOfToken {
  readonly tokenHash: string;
  readonly topics: readonly string[];
}

const insertChoice = sql`insert into token_topics (token_hash, topic, since) values `;

/**
 * Selects the number of the revocation of the topic of a row `c` of `token_topics`, which belongs to the row `t` of
 * `stream_tokens`. A subquery, because PostgreSQL may read the whole table for a join. A token with rights has a subject.
 */
export const revokedSeqSql: Sql = sql`(select r.seq from topic_revocations r
  where r.user_id = t.subject and r.topic = c.topic)`;

/**
 * Whether a row `c` of `token_topics` counts, which belongs to the row `t` of `stream_tokens`. It does not if the
 * topic was revoked after the rights of the token were granted: the row was inserted by a request that had read the
 * rights before.
 */
export const doesCount: Sql = sql`coalesce(t.rights_seq, 0) >= coalesce(${revokedSeqSql}, 0)`;

/** Inserts rows in a transaction. Does nothing without rows. */
export async function insertChoices(tx: Database, rows: readonly ChoiceRow[]): Promise<void> {
  const values = rows.map(({ tokenHash, topic, since }) => [tokenHash, topic, since]);
  await Promise.all(inserts(insertChoice, values).map((insert) => tx.execute(insert)));
}

/** Deletes the rows of these topics, of which there must be one. */
export async function deleteChoices(
  tx: Database,
  { tokenHash, topics }: TopicsOfToken,
): Promise<void> {
  await tx.execute(
    sql`delete from token_topics where token_hash = ${tokenHash} and topic in (${list(topics)})`,
  );
}
