import { type Database, type Sql, sql } from '../../db/database.js';
import { Failure } from '../../errors.js';
import type { AppendControlEntries } from '../../event-log/open.js';
import type { ControlEntry } from '../../events/control-entry.js';
import { formatTopicRights, isAllowed, type TopicRights } from '../../events/topic-rights.js';
import { deleteChoices, revokedSeqSql, type TopicsOfToken } from './choice-rows.js';
import { storeLoss, transactionOfUsers } from './user-locks.js';

/** What a fresh credential grants to a stream token. */
export interface TokenGrant {
  /** When its streams end, epoch ms. Undefined with a local session. */
  readonly endsAt: number | undefined;
  /** See `NewStreamToken`. */
  readonly mintedSeq: number;
  readonly rights: TopicRights;
  /** The newest entry before the rights were read, `mintedSeq` if absent. A later revocation voids the right on its topic. */
  readonly rightsSeq?: number | undefined;
  readonly confirmRights?: ConfirmRights | undefined;
}

/**
 * Locks the source of rights until the end of a transaction, and returns whether the rights are still those that
 * were read. Absent for rights that cannot change.
 */
export type ConfirmRights = (tx: Database) => Promise<boolean>;

/** A token, as `StreamTokens.find` returns it. */
export interface GrantedToken {
  readonly hash: string;
  readonly publicId: string;
  readonly userId: string;
  readonly rights: string | null;
}

export interface TokenRightsParts {
  readonly db: Database;
  readonly appendControlEntries: AppendControlEntries;
}

/** Returns what `stream_tokens.rights` contains. */
export function toStoredRights(rights: TopicRights): string | null {
  return rights.size === 0 ? null : formatTopicRights(rights);
}

/** Throws `service_unavailable` if rights have changed since they were read. */
export async function requireConfirmed(
  tx: Database,
  confirmRights: ConfirmRights | undefined,
): Promise<void> {
  if (confirmRights !== undefined && !(await confirmRights(tx))) throw rightsChanged();
}

function rightsChanged(): Failure {
  const message = 'Cannot grant rights now: the rights of the user have just changed';
  return new Failure('service_unavailable', message, { retryAfterMs: 1000 });
}

/**
 * Replaces the end and the rights of a stream token. Chosen topics that the new rights do not cover are removed as
 * by the backend. Returns false if there is no such token. Throws `service_unavailable` when the fresh rights have
 * changed since they were read.
 */
export function replaceGrant(
  { db, appendControlEntries }: TokenRightsParts,
  token: GrantedToken,
  grant: TokenGrant,
): Promise<boolean> {
  const work = (tx: Database) => replaceInTransaction(tx, token, grant, appendControlEntries);
  // A token without rights has no chosen topics, so nothing can be removed.
  return token.rights === null
    ? db.transaction(work)
    : transactionOfUsers(db, [token.userId], work);
}

async function replaceInTransaction(
  tx: Database,
  { hash, publicId, userId, rights: oldRights }: GrantedToken,
  grant: TokenGrant,
  appendControlEntries: AppendControlEntries,
): Promise<boolean> {
  const { endsAt, mintedSeq, rights, rightsSeq = mintedSeq, confirmRights } = grant;
  await requireConfirmed(tx, confirmRights);
  const isSameKind = endsAt === undefined ? sql`ends_at is null` : sql`ends_at is not null`;
  const lock = sql`update stream_tokens set rights = rights where token_hash = ${hash}
    and ${isSameKind}`;
  if ((await tx.execute(lock)) === 0) return false;
  const ofToken = sql`token_hash = ${hash}`;
  const lost = await findLost(tx, ofToken, { rights, rightsSeq });
  // Tokens that were minted before migration 7 have no subject, by which revocations are found.
  await tx.execute(
    sql`update stream_tokens set ends_at = ${endsAt ?? null}, minted_seq = ${mintedSeq},
        rights = ${toStoredRights(rights)}, rights_seq = ${rightsSeq}, subject = ${userId},
        public_id = ${publicId}
      where token_hash = ${hash}`,
  );
  if (lost.removed.length > 0 && oldRights === null) throw rightsChanged(); // Without the lock on the user.
  const entries: ControlEntry[] = [];
  if (endsAt !== undefined)
    entries.push({ kind: 'token_extended', extension: { tokenHash: hash, endsAt } });
  await removeChoices(tx, { userId, ...lost, entries }, appendControlEntries);
  return true;
}

/** New rights of a local account. */
export interface AccountRights {
  readonly userId: string;
  /** The rights of its stream tokens, which include those for everybody. */
  readonly rights: TopicRights;
  /** Stores the rights of the account, and locks it. Returns false if there is no such account. */
  readonly changeAccount: (tx: Database) => Promise<boolean>;
}

export interface AccountRightsParts extends TokenRightsParts {
  /** Selects the number of the newest entry of the event log. */
  readonly headSeqSql: Sql;
}

/**
 * Replaces the rights of a local account and of its stream tokens in one transaction. Chosen topics that they do not
 * cover are removed as by the backend. Returns false if there is no such account.
 */
export function replaceRightsOfAccount(
  { db, appendControlEntries, headSeqSql }: AccountRightsParts,
  { changeAccount, userId, rights }: AccountRights,
): Promise<boolean> {
  return transactionOfUsers(db, [userId], async (tx) => {
    if (!(await changeAccount(tx))) return false;
    // Every revocation that has not committed yet waits for the lock on the user, and gets a higher number.
    const [head] = await tx.query<{ seq: number | null }>(sql`select ${headSeqSql} as seq`);
    const account = { userId, rights, rightsSeq: head?.seq ?? 0 };
    await replaceRightsOfTokens(tx, account, appendControlEntries);
    return true;
  });
}

async function replaceRightsOfTokens(
  tx: Database,
  { userId, ...granted }: GrantedRights & { readonly userId: string },
  appendControlEntries: AppendControlEntries,
): Promise<void> {
  const ofUser = sql`user_id = ${Number(userId)}`;
  await tx.execute(sql`update stream_tokens set rights = rights where ${ofUser}`); // Locks them.
  const lost = await findLost(tx, ofUser, granted);
  // Tokens that version 0.1.0 minted have no subject, by which revocations are found.
  await tx.execute(
    sql`update stream_tokens set rights = ${toStoredRights(granted.rights)},
        rights_seq = ${granted.rightsSeq}, subject = ${userId}
      where ${ofUser}`,
  );
  await removeChoices(tx, { userId, ...lost, entries: [] }, appendControlEntries);
}

interface GrantedRights {
  readonly rights: TopicRights;
  readonly rightsSeq: number;
}

/** Chosen topics that tokens lose with their rights. */
interface LostChoices {
  /** Those that counted. */
  readonly removed: readonly TopicsOfToken[];
  /** Those that a revocation has voided. They would count again with the number of the new rights. */
  readonly voided: readonly TopicsOfToken[];
}

interface ChoiceOfToken {
  readonly token_hash: string;
  readonly topic: string;
  readonly rights_seq: number;
  readonly revoked_seq: number | null;
}

/** Finds the chosen topics that tokens lose with new rights. The tokens must be locked, and still have the old rights. */
async function findLost(
  tx: Database,
  ofTokens: Sql,
  { rights, rightsSeq }: GrantedRights,
): Promise<LostChoices> {
  const rows = await tx.query<ChoiceOfToken>(
    sql`select c.token_hash, c.topic, coalesce(t.rights_seq, 0) as rights_seq, ${revokedSeqSql} as revoked_seq
      from (select token_hash, subject, rights_seq from stream_tokens where ${ofTokens}) t
        join token_topics c on c.token_hash = t.token_hash
      order by c.token_hash, c.topic`,
  );
  const isVoid = (row: ChoiceOfToken) => (row.revoked_seq ?? 0) > row.rights_seq;
  const isCovered = ({ topic, revoked_seq: revokedSeq }: ChoiceOfToken) =>
    isAllowed(rights, topic, 'listen') && (revokedSeq ?? 0) <= rightsSeq;
  return {
    removed: toTopicsOfTokens(rows.filter((row) => !isVoid(row) && !isCovered(row))),
    voided: toTopicsOfTokens(rows.filter(isVoid)),
  };
}

function toTopicsOfTokens(rows: readonly ChoiceOfToken[]): TopicsOfToken[] {
  const topicsByHash = new Map<string, string[]>();
  for (const { token_hash: tokenHash, topic } of rows)
    topicsByHash.set(tokenHash, [...(topicsByHash.get(tokenHash) ?? []), topic]);
  return [...topicsByHash].map(([tokenHash, topics]) => ({ tokenHash, topics }));
}

interface Removal extends LostChoices {
  readonly userId: string;
  /** Entries to append before those of the removal. */
  readonly entries: readonly ControlEntry[];
}

/**
 * Removes chosen topics as by the backend, and appends the entries. Those that did not count are deleted without an
 * entry or a loss: no stream had them. The row of the user's loss must be locked.
 */
async function removeChoices(
  tx: Database,
  { userId, removed, voided, entries }: Removal,
  appendControlEntries: AppendControlEntries,
): Promise<void> {
  for (const choice of [...voided, ...removed]) await deleteChoices(tx, choice);
  const seq = await appendControlEntries(tx, [
    ...entries,
    ...removed.map((choice) => ({ kind: 'choices_removed' as const, choice })),
  ]);
  // The entries commit together, and a client has seen at least that of its own token.
  if (removed.length > 0) await storeLoss(tx, [userId], seq - removed.length + 1);
}
