import { type Database, inserts, list, type Sql, sql } from '../../db/database.js';
import { Failure } from '../../errors.js';
import type { AppendControlEntries } from '../../event-log/open.js';
import { membersChanged } from '../../events/control-entry.js';
import type { TopicAction } from '../../events/topic-rights.js';
import { inStatements, storeLoss, transactionOfUsers } from './user-locks.js';

export interface MembershipsOptions {
  readonly db: Database;
  readonly appendControlEntries: AppendControlEntries;
  /** Selects the number of the newest entry of the event log. */
  readonly headSeqSql: Sql;
}

export interface NewMember {
  readonly userId: string;
  /** What the member may do with the topic besides receiving its events. */
  readonly rights: readonly TopicAction[];
}

/** A change of the members of a topic. Each user occurs once. */
export interface MemberChange {
  readonly topic: string;
  readonly add: readonly NewMember[];
  readonly remove: readonly string[];
}

/** A membership, whose user receives the events of the topic with numbers above `since`. */
export interface Membership extends NewMember {
  readonly topic: string;
  readonly since: number;
}

/** Maximum number of topics of which a user is a member. */
export const membershipsMax = 1000;

interface Row {
  readonly user_id: string;
  readonly topic: string;
  readonly since: number;
  /** JSON; null for no rights. */
  readonly rights: string | null;
}

/**
 * Stores memberships of topics, in `topic_members`. A change is one transaction with its entries of the event log. Each
 * removal is stored as a loss of its user, so that a client that resumes before it is told that events are missing.
 */
export class Memberships {
  readonly #options: MembershipsOptions;

  constructor(options: MembershipsOptions) {
    this.#options = options;
  }

  /**
   * Changes the members of a topic, and returns the number of the last entry, or that of the newest if nothing needs an
   * entry: the membership of a member that is added again keeps its number and gets the given rights. A removal is a
   * loss also for a user who was no member. Throws `conflict` if a user would be a member of more than 1000 topics;
   * nothing is changed then.
   */
  change({ topic, add, remove }: MemberChange): Promise<number> {
    const { db, appendControlEntries, headSeqSql } = this.#options;
    const userIds = [...add.map(({ userId }) => userId), ...remove];
    return transactionOfUsers(db, userIds, async (tx) => {
      const members = await findMembers(tx, topic, add);
      const isMember = ({ userId }: NewMember) => members.has(userId);
      const newMembers = add.filter((member) => !isMember(member));
      await assertBelowLimit(tx, newMembers);
      await updateRights(tx, topic, add.filter(isMember), members);
      for (const batch of inStatements(remove))
        await tx.execute(
          sql`delete from topic_members where topic = ${topic} and user_id in (${list(batch)})`,
        );
      const newIds = newMembers.map(({ userId }) => userId);
      const entries = [
        ...membersChanged('members_removed', { topic, userIds: remove }),
        ...membersChanged('members_added', { topic, userIds: newIds }),
      ];
      if (entries.length === 0) return readHead(tx, headSeqSql);
      const lastSeq = await appendControlEntries(tx, entries);
      // Publishers wait from here on, so all statements are sent together.
      const rights = new Map(newMembers.map((member) => [member.userId, formatRights(member)]));
      const rows: (string | number | null)[][] = [];
      const writes: Promise<unknown>[] = [];
      for (const [index, entry] of entries.entries()) {
        const seq = lastSeq - entries.length + 1 + index;
        const { userIds: ofEntry } = 'members' in entry ? entry.members : { userIds: [] };
        if (entry.kind === 'members_removed') writes.push(storeLoss(tx, ofEntry, seq));
        else for (const id of ofEntry) rows.push([id, topic, seq, rights.get(id) ?? null]);
      }
      for (const insert of inserts(insertMembers, rows)) writes.push(tx.execute(insert));
      await Promise.all(writes);
      return lastSeq;
    });
  }

  /** Lists members of a topic in the order of their ids, those with ids that begin with `userPrefix`. */
  async listOfTopic(
    topic: string,
    { userPrefix, after, limit }: { userPrefix: string; after: string; limit: number },
  ): Promise<readonly Membership[]> {
    // A range, because an index has it in order.
    const ofPrefix =
      userPrefix === ''
        ? sql``
        : sql`and user_id >= ${userPrefix} and user_id < ${userPrefix + afterUserIds}`;
    const rows = await this.#options.db.query<Row>(
      sql`select user_id, topic, since, rights from topic_members
        where topic = ${topic} and user_id > ${after} ${ofPrefix} order by user_id limit ${limit}`,
    );
    return rows.map(toMembership);
  }

  /** Lists the memberships of a user after a topic, in the order of the topics: at most 1000. */
  async listOfUser(userId: string, after: string): Promise<readonly Membership[]> {
    const rows = await this.#options.db.query<Row>(
      sql`select user_id, topic, since, rights from topic_members
        where user_id = ${userId} and topic > ${after} order by topic limit ${membershipsMax}`,
    );
    return rows.map(toMembership);
  }
}

const insertMembers = sql`insert into topic_members (user_id, topic, since, rights) values `;
/** Follows every character of user ids. */
const afterUserIds = '\x7f';

/** Returns the rights of those who are members already, by user id, as they are stored. */
async function findMembers(
  tx: Database,
  topic: string,
  users: readonly NewMember[],
): Promise<ReadonlyMap<string, string | null>> {
  const found = new Map<string, string | null>();
  for (const batch of inStatements(users)) {
    const ids = list(batch.map(({ userId }) => userId));
    const rows = await tx.query<Row>(
      sql`select user_id, rights from topic_members where topic = ${topic} and user_id in (${ids})`,
    );
    for (const row of rows) found.set(row.user_id, row.rights);
  }
  return found;
}

async function assertBelowLimit(tx: Database, newMembers: readonly NewMember[]): Promise<void> {
  for (const batch of inStatements(newMembers)) {
    const ids = list(batch.map(({ userId }) => userId));
    const [full] = await tx.query<Row>(
      sql`select user_id from topic_members where user_id in (${ids})
        group by user_id having count(*) >= ${membershipsMax} order by user_id limit 1`,
    );
    if (full === undefined) continue;
    const message = `Cannot add member: the user is a member of ${membershipsMax} topics`;
    throw new Failure('conflict', message, { info: { field: 'add', user: full.user_id } });
  }
}

async function updateRights(
  tx: Database,
  topic: string,
  members: readonly NewMember[],
  stored: ReadonlyMap<string, string | null>,
): Promise<void> {
  const idsByRights = new Map<string | null, string[]>();
  for (const member of members) {
    const rights = formatRights(member);
    if (stored.get(member.userId) === rights) continue;
    idsByRights.set(rights, [...(idsByRights.get(rights) ?? []), member.userId]);
  }
  for (const [rights, ids] of idsByRights) {
    for (const batch of inStatements(ids))
      await tx.execute(
        sql`update topic_members set rights = ${rights}
          where topic = ${topic} and user_id in (${list(batch)})`,
      );
  }
}

async function readHead(tx: Database, headSeqSql: Sql): Promise<number> {
  const [row] = await tx.query<{ seq: number | null }>(sql`select ${headSeqSql} as seq`);
  return row?.seq ?? 0;
}

function formatRights({ rights }: NewMember): string | null {
  return rights.length === 0 ? null : JSON.stringify(rights);
}

function toMembership({ user_id: userId, topic, since, rights }: Row): Membership {
  const parsed = rights === null ? [] : (JSON.parse(rights) as readonly TopicAction[]);
  return { userId, topic, since, rights: parsed };
}
