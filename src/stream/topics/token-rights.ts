import { type Database, sql } from '../../db/database.js';
import { Failure } from '../../errors.js';
import type { AppendControlEntries } from '../../event-log/open.js';
import type { ControlEntry } from '../../events/control-entry.js';
import { formatTopicRights, isAllowed, type TopicRights } from '../../events/topic-rights.js';
import { deleteChoices, type TopicsOfToken } from './choice-rows.js';
import { storeLoss, transactionOfUsers } from './user-locks.js';

/** What a fresh credential grants to a stream token. */
export interface TokenGrant {
  /** When its streams end, epoch ms. Undefined with a local session. */
  readonly endsAt: number | undefined;
  /** See `NewStreamToken`. */
  readonly mintedSeq: number;
  readonly rights: TopicRights;
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
  const { endsAt, mintedSeq, rights, confirmRights } = grant;
  await requireConfirmed(tx, confirmRights);
  const isSameKind = endsAt === undefined ? sql`ends_at is null` : sql`ends_at is not null`;
  const lock = sql`update stream_tokens set rights = rights where token_hash = ${hash}
    and ${isSameKind}`;
  if ((await tx.execute(lock)) === 0) return false;
  const rows = await tx.query<{ topic: string; minted_seq: number; revoked_seq: number | null }>(
    sql`select c.topic, coalesce(t.minted_seq, 0) as minted_seq, r.seq as revoked_seq
      from stream_tokens t join token_topics c on c.token_hash = t.token_hash
        left join topic_revocations r on r.user_id = ${userId} and r.topic = c.topic
      where t.token_hash = ${hash} order by c.topic`,
  );
  // Tokens that were minted before migration 7 have no subject, by which revocations are found.
  await tx.execute(
    sql`update stream_tokens set ends_at = ${endsAt ?? null}, minted_seq = ${mintedSeq},
        rights = ${toStoredRights(rights)}, subject = ${userId}, public_id = ${publicId}
      where token_hash = ${hash}`,
  );
  // With the new number, a row that a revocation has voided would count again.
  const removed = rows.filter(({ topic, minted_seq: oldMintedSeq, revoked_seq: revokedSeq }) => {
    const isVoid = (revokedSeq ?? 0) > Math.min(oldMintedSeq, mintedSeq);
    return isVoid || !isAllowed(rights, topic, 'listen');
  });
  if (removed.length > 0 && oldRights === null) throw rightsChanged(); // Without the lock on the user.
  const topics = removed.map(({ topic }) => topic);
  const entries: ControlEntry[] = [];
  if (endsAt !== undefined)
    entries.push({ kind: 'token_extended', extension: { tokenHash: hash, endsAt } });
  await removeChoices(
    tx,
    { userId, choices: [{ tokenHash: hash, topics }], entries },
    appendControlEntries,
  );
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

/**
 * Replaces the rights of a local account and of its stream tokens in one transaction. Chosen topics that they do not
 * cover are removed as by the backend. Returns false if there is no such account.
 */
export function replaceRightsOfAccount(
  { db, appendControlEntries }: TokenRightsParts,
  { changeAccount, ...account }: AccountRights,
): Promise<boolean> {
  return transactionOfUsers(db, [account.userId], async (tx) => {
    if (!(await changeAccount(tx))) return false;
    await replaceRightsOfTokens(tx, account, appendControlEntries);
    return true;
  });
}

async function replaceRightsOfTokens(
  tx: Database,
  { userId, rights }: Pick<AccountRights, 'userId' | 'rights'>,
  appendControlEntries: AppendControlEntries,
): Promise<void> {
  const isOfUser = sql`t.user_id = ${Number(userId)}`;
  await tx.execute(
    sql`update stream_tokens set rights = ${toStoredRights(rights)} where user_id = ${Number(userId)}`,
  );
  const rows = await tx.query<{ token_hash: string; topic: string }>(
    sql`select c.token_hash, c.topic from stream_tokens t
        join token_topics c on c.token_hash = t.token_hash
      where ${isOfUser} order by c.token_hash, c.topic`,
  );
  const uncovered = new Map<string, string[]>();
  for (const { token_hash: tokenHash, topic } of rows) {
    if (isAllowed(rights, topic, 'listen')) continue;
    uncovered.set(tokenHash, [...(uncovered.get(tokenHash) ?? []), topic]);
  }
  const choices = [...uncovered].map(([tokenHash, topics]) => ({ tokenHash, topics }));
  await removeChoices(tx, { userId, choices, entries: [] }, appendControlEntries);
}

interface Removal {
  readonly userId: string;
  readonly choices: readonly TopicsOfToken[];
  /** Entries to append before those of the removal. */
  readonly entries: readonly ControlEntry[];
}

/** Removes chosen topics as by the backend, and appends the entries. The row of the user's loss must be locked. */
async function removeChoices(
  tx: Database,
  { userId, choices, entries }: Removal,
  appendControlEntries: AppendControlEntries,
): Promise<void> {
  const removed = choices.filter(({ topics }) => topics.length > 0);
  for (const choice of removed) await deleteChoices(tx, choice);
  const seq = await appendControlEntries(tx, [
    ...entries,
    ...removed.map((choice) => ({ kind: 'choices_removed' as const, choice })),
  ]);
  if (removed.length > 0) await storeLoss(tx, [userId], seq);
}
