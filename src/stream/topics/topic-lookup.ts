import { type Database, list, type Sql, sql } from '../../db/database.js';
import { Batcher } from '../../util/batcher.js';
import { doesCount } from './choice-rows.js';
import type { StoredRows, TopicRow } from './topic-rows.js';

/** Whose topics are read: those of a user, and those chosen for a stream token. */
export interface TopicOwner {
  readonly userId: string;
  /** Undefined for a stream that is opened with an access token. */
  readonly tokenHash: string | undefined;
}

/** What is stored about the topics of a stream that is being opened, in one snapshot. */
export interface StoredTopics {
  readonly rows: StoredRows;
  /** The newest removal or revocation by the backend for this user; 0 if there is none. */
  readonly lossSeq: number;
  /** Every entry of the event log up to this number has been trimmed. */
  readonly trimmedSeq: number;
}

interface Row {
  readonly kind: 'member' | 'chosen' | 'loss' | 'trimmed';
  /** The user, or the hash of the token. */
  readonly owner: string;
  readonly topic: string;
  readonly seq: number | null;
}

/** Reads the topics of streams that are being opened. Reads that start together share a query. */
export class TopicLookup {
  readonly #db: Database;
  readonly #trimmedSeqSql: Sql;
  readonly #lookups: Batcher<TopicOwner, StoredTopics>;

  /** `trimmedSeqSql` selects the number up to which the event log is trimmed. */
  constructor(db: Database, trimmedSeqSql: Sql) {
    this.#db = db;
    this.#trimmedSeqSql = trimmedSeqSql;
    this.#lookups = Batcher.forDatabase(db, (owners) => this.#find(owners));
  }

  /** A read starts after its last request, so it sees everything that was committed before the call. */
  read(owner: TopicOwner): Promise<StoredTopics> {
    return this.#lookups.run(owner);
  }

  async #find(owners: readonly TopicOwner[]): Promise<StoredTopics[]> {
    const userIds = list([...new Set(owners.map(({ userId }) => userId))]);
    const hashes = [...new Set(owners.flatMap(({ tokenHash }) => tokenHash ?? []))];
    const chosen =
      hashes.length === 0
        ? sql``
        : sql`union all
          select 'chosen', c.token_hash, c.topic, c.since
          from token_topics c join stream_tokens t on t.token_hash = c.token_hash
          where c.token_hash in (${list(hashes)}) and ${doesCount}`;
    const rows = await this.#db.query<Row>(
      sql`select 'member' as kind, user_id as owner, topic, since as seq
        from topic_members where user_id in (${userIds})
        ${chosen}
        union all select 'loss', user_id, '', seq from topic_losses where user_id in (${userIds})
        union all select 'trimmed', '', '', ${this.#trimmedSeqSql}`,
    );
    return toStoredTopics(rows, owners);
  }
}

function toStoredTopics(rows: readonly Row[], owners: readonly TopicOwner[]): StoredTopics[] {
  const memberships = new Map<string, TopicRow[]>();
  const choices = new Map<string, TopicRow[]>();
  const losses = new Map<string, number>();
  let trimmedSeq = 0;
  for (const { kind, owner, topic, seq } of rows) {
    const since = seq ?? 0;
    if (kind === 'member') addTo(memberships, owner, { topic, since });
    if (kind === 'chosen') addTo(choices, owner, { topic, since });
    if (kind === 'loss') losses.set(owner, since);
    if (kind === 'trimmed') trimmedSeq = since;
  }
  return owners.map(({ userId, tokenHash = '' }) => ({
    rows: { memberships: memberships.get(userId) ?? [], choices: choices.get(tokenHash) ?? [] },
    lossSeq: losses.get(userId) ?? 0,
    trimmedSeq,
  }));
}

function addTo(rows: Map<string, TopicRow[]>, owner: string, row: TopicRow): void {
  const ofOwner = rows.get(owner);
  if (ofOwner === undefined) rows.set(owner, [row]);
  else ofOwner.push(row);
}
