import { type Database, type Sql, sql } from '../../db/database.js';
import type { AppendControlEntries } from '../../event-log/open.js';
import type { ControlEntry } from '../../events/control-entry.js';
import { parseStoredRights, type TopicRights } from '../../events/topic-rights.js';
import { invalidField } from '../../http/strict-fields.js';
import { invalidStreamToken } from '../tokens/stream-token.js';
import { deleteChoices, doesCount, insertChoices } from './choice-rows.js';
import { assertRightsAllow, chosenMax, topicsNotAllowed } from './topic-list.js';

/** A topic that was chosen for a stream token. */
export interface Choice {
  readonly topic: string;
  /** The streams of the token receive events of the topic with higher numbers. */
  readonly since: number;
}

/** The topics of the streams of a token, in one snapshot. */
export interface TokenChoices {
  /** Sorted by topic. */
  readonly choices: readonly Choice[];
  /** Number of topics of which the user is a member. */
  readonly memberships: number;
  /** The newest entry of the event log. */
  readonly headSeq: number;
}

/** Topics to choose and to give up. */
export interface ChoiceChange {
  readonly add: readonly string[];
  readonly remove: readonly string[];
}

/** A token, as `StreamTokens.find` returns it. */
export interface ChoosingToken {
  readonly hash: string;
  readonly userId: string;
}

export interface ChoicesOptions {
  readonly db: Database;
  readonly appendControlEntries: AppendControlEntries;
  /** Selects the number of the newest entry of the event log. */
  readonly headSeqSql: Sql;
}

interface Row {
  readonly topic: string | null;
  readonly since: number | null;
  readonly memberships: number;
  readonly head_seq: number | null;
  readonly rights: string | null;
}

/**
 * Stores the chosen topics of stream tokens, in the table `token_topics`. A topic was chosen when the token was
 * minted, or later within the rights of the token. It stays until the client gives it up, the topic is revoked,
 * fresh rights no longer cover it, or the token is deleted.
 */
export class Choices {
  readonly #options: ChoicesOptions;

  constructor(options: ChoicesOptions) {
    this.#options = options;
  }

  /** Returns the topics of the streams of a token. Throws `invalid_token` if the token was deleted meanwhile. */
  read(token: ChoosingToken): Promise<TokenChoices> {
    return this.#read(this.#options.db, token);
  }

  /**
   * Chooses and gives up topics: all of them or none. A topic that was chosen before keeps its `since`. Throws
   * `topic_not_allowed` for topics to which the rights of the token do not allow to listen, `invalid_request` if
   * more than 100 topics would be chosen, and `invalid_token` if the token was deleted meanwhile.
   */
  change(token: ChoosingToken, { add, remove }: ChoiceChange): Promise<TokenChoices> {
    const { db, appendControlEntries } = this.#options;
    return db.transaction(async (tx) => {
      const tokenHash = token.hash;
      const lock = sql`update stream_tokens set rights = rights where token_hash = ${tokenHash}`;
      if ((await tx.execute(lock)) === 0) throw invalidStreamToken();
      const before = await this.#read(tx, token);
      assertRightsAllow(before.rights, add, 'add');
      const chosen = new Set(before.choices.map(({ topic }) => topic));
      const added = add.filter((topic) => !chosen.has(topic));
      const removed = remove.filter((topic) => chosen.has(topic));
      if (chosen.size - removed.length + added.length > chosenMax)
        throw invalidField('add', `would make more than ${chosenMax} chosen topics`);
      const changed = [...added, ...removed];
      if (changed.length === 0) return before;
      // Of an added topic, too: a row that does not count because the topic was revoked may be there.
      await deleteChoices(tx, { tokenHash, topics: changed });
      const entries: ControlEntry[] = [];
      const choice = (topics: readonly string[]) => ({ tokenHash, topics });
      if (removed.length > 0) entries.push({ kind: 'topics_given_up', choice: choice(removed) });
      if (added.length > 0) entries.push({ kind: 'topics_chosen', choice: choice(added) });
      const seq = await appendControlEntries(tx, entries);
      const rows = added.map((topic) => ({ tokenHash, topic, since: seq }));
      // Sent together, because publishers wait. The read is exact at this number. A topic that was revoked since
      // the rights were issued is not found.
      const [, after] = await Promise.all([insertChoices(tx, rows), this.#read(tx, token)]);
      const counting = new Set(after.choices.map(({ topic }) => topic));
      const voided = added.filter((topic) => !counting.has(topic));
      if (voided.length > 0) throw topicsNotAllowed(voided, 'add');
      return after;
    });
  }

  async #read(
    db: Database,
    { hash, userId }: ChoosingToken,
  ): Promise<TokenChoices & { readonly rights: TopicRights }> {
    const { headSeqSql } = this.#options;
    const rows = await db.query<Row>(
      sql`select c.topic, c.since, t.rights, ${headSeqSql} as head_seq,
          (select count(*) from topic_members m where m.user_id = ${userId}) as memberships
        from stream_tokens t
          left join token_topics c on c.token_hash = t.token_hash and ${doesCount}
        where t.token_hash = ${hash}`,
    );
    const [first] = rows;
    if (first === undefined) throw invalidStreamToken();
    const choices = rows.flatMap(({ topic, since }) => {
      return topic === null ? [] : [{ topic, since: since ?? 0 }];
    });
    return {
      choices: choices.sort((a, b) => (a.topic < b.topic ? -1 : 1)),
      memberships: first.memberships,
      headSeq: first.head_seq ?? 0,
      rights: parseStoredRights(first.rights),
    };
  }
}
