import { type Database, list, sql, tuples } from '../../db/database.js';

const usersPerStatement = 200;

/** Returns lists of at most 200 items, for statements whose size must be limited. */
export function inStatements<Item>(items: readonly Item[]): (readonly Item[])[] {
  const batches: (readonly Item[])[] = [];
  for (let start = 0; start < items.length; start += usersPerStatement)
    batches.push(items.slice(start, start + usersPerStatement));
  return batches;
}

/**
 * Runs a transaction that changes memberships of these users, or stores a loss of theirs, after every other one that
 * does so with any of them. Each user has a row in `topic_losses`, which is the lock; its number is 0 until the user
 * loses a topic. The rows are inserted and locked in the order of the ids, so that two transactions do not wait for each
 * other.
 */
export function transactionOfUsers<Result>(
  db: Database,
  userIds: readonly string[],
  work: (tx: Database) => Promise<Result>,
): Promise<Result> {
  const sortedIds = [...userIds].sort();
  return db.transaction(async (tx) => {
    for (const batch of inStatements(sortedIds)) await lockUsers(tx, batch);
    return work(tx);
  });
}

async function lockUsers(tx: Database, userIds: readonly string[]): Promise<void> {
  const isMysql = tx.dialect === 'mariadb' || tx.dialect === 'mysql';
  // Not portable, but without it two transactions could insert the same row, and one of them would fail.
  const orLock = isMysql
    ? sql`on duplicate key update seq = seq`
    : sql`on conflict (user_id) do update set seq = topic_losses.seq`;
  const rows = tuples(userIds.map((userId) => [userId, 0]));
  await tx.execute(sql`insert into topic_losses (user_id, seq) values ${rows} ${orLock}`);
}

/**
 * Stores the number of a removal by the backend: clients of these users that resume below it get `too_old`. The users
 * must be locked, so this waits for nothing.
 */
export async function storeLoss(
  tx: Database,
  userIds: readonly string[],
  seq: number,
): Promise<void> {
  await tx.execute(sql`update topic_losses set seq = ${seq} where user_id in (${list(userIds)})`);
}
