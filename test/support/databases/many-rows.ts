import { createHash } from 'node:crypto';
import { type Database, type Sql, sql, type Value } from '../../../src/db/database.js';

const rowsPerInsert = 500;

/** Returns `length` hex digits, up to 64, that look random and depend on `text` only. */
export function fakeHex(text: string, length: number): string {
  return createHash('sha256').update(text).digest('hex').slice(0, length);
}

/**
 * Fills the tables with a few thousand rows each, few of them expired, as if Herald had been in use for some time.
 * With so many rows, a planner does not prefer a full scan.
 */
export async function fillTables(db: Database, now: number, count = 2000): Promise<void> {
  const day = 86_400_000;
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  type Row = (number: number) => readonly Value[];
  const fill = (table: string, columns: string, row: Row, which = numbers) =>
    insert(db, `${table} (${columns})`, which.map(row));

  await fill(
    'users',
    'username, username_key, password_hash, first_name, last_name, password_changed_at, created_at, updated_at',
    (n) => [`filler${n}`, `filler${n}`, 'none', 'A', 'B', now, now, now],
  );
  const [first] = await db.query<{ id: number }>(sql`select min(id) as id from users`);
  const getUserId = (n: number) => (first?.id ?? 1) + (n % 1000);
  await fill(
    'sessions',
    'id, user_id, selector, cur_hash, created_at, refreshed_at, idle_expires_at, absolute_expires_at, revoked_at, revoke_reason, ip_key',
    (n) => {
      const revokedAt = n % 10 === 0 ? now - (n / count) * day : null;
      const ends = [now + day + n, now + 90 * day, revokedAt, revokedAt === null ? null : 'logout'];
      const keys = [
        fakeHex(`session ${n}`, 32),
        getUserId(n),
        fakeHex(`selector ${n}`, 32),
        fakeHex(`${n}`, 64),
      ];
      return [...keys, now - n, now - n, ...ends, '192.0.2.1'];
    },
  );
  await fill(
    'stream_tokens',
    'token_hash, user_id, subject, session_id, created_at, expires_at, lease_until, connection_id',
    (n) => {
      const isOpen = n % 2 === 0;
      const lease = isOpen ? [now + day + n, fakeHex(`connection ${n}`, 32)] : [null, null];
      const users = [getUserId(n), String(getUserId(n))];
      const keys = [fakeHex(`token ${n}`, 64), ...users, fakeHex(`session ${n}`, 32)];
      return [...keys, now - n, now + day + n, ...lease];
    },
  );
  await fill('disconnects', 'user_id, target, seq, issued_before, created_at', (n) => [
    ...[`user ${n % 1000}`, '', n, now - n, now - n],
  ]);
  await fill('topic_members', 'user_id, topic, since', (n) => [
    ...[`user ${n % 1000}`, `topic ${n % 700}`, n],
  ]);
  await fill('topic_losses', 'user_id, seq', (n) => [`user ${n}`, n]);
  await fill('topic_revocations', 'user_id, topic, seq, created_at', (n) => [
    ...[`user ${n % 1000}`, `topic ${n % 700}`, n, now - n],
  ]);
  await fill('api_keys', 'id, name, key_hash, scopes, created_at', (n) => [
    ...[fakeHex(`key ${n}`, 16), `filler${n}`, fakeHex(`key hash ${n}`, 64)],
    ...['publish', now],
  ]);
  // Ten times as many rows: in a small table, a full scan is the better plan for a page of up to 128 events.
  const seqs = Array.from({ length: 10 * count }, (_, index) => index + 1);
  const topics = (n: number) => [fakeHex(`token ${(n % count) + 1}`, 64), `topic ${n % 11}`, n];
  await fill('token_topics', 'token_hash, topic, since', topics, seqs);
  const data = JSON.stringify('x'.repeat(200));
  await fill('events', 'seq, type, data, created_at', (n) => [n, 'note', data, now], seqs);
  await fill('event_audiences', 'audience, seq', (n) => [`u:${n % 300}`, n], seqs);
  await fill('event_audiences', 'audience, seq', (n) => [`t:${n % 3000}`, n], seqs);
  await fill('trimmed_audiences', 'bucket, seq', (n) => [n, 0]);
  await fill('trimmed_topics', 'topic, seq', (n) => [`${n}`, n], seqs);
  await fill('idempotency', 'key_hash, body_hash, first_seq, event_count, expires_at', (n) => [
    ...[fakeHex(`idempotency ${n}`, 64), fakeHex('body', 64)],
    ...[n, 1, now + day + n],
  ]);
  // Processes whose last heartbeat is too old to count them, and too recent to delete them.
  await fill('processes', 'id, users, seen_at', (n) => [
    fakeHex(`process ${n}`, 16),
    1,
    now - 30_000,
  ]);
  await fill(
    'open_streams',
    'stream_id, process_id, user_id, session_id, public_id, opened_at, address, user_agent',
    (n) => [
      ...[fakeHex(`stream ${n}`, 32), fakeHex(`process ${n % 1000}`, 16), `user ${n % 1000}`],
      ...[fakeHex(`session ${n}`, 32), fakeHex(`public ${n}`, 32), now, '192.0.2.1', null],
    ],
  );
  await db.execute(
    sql`insert into log_head (id, epoch, seq, trimmed_seq, events, bytes)
      values (1, 'e1', ${seqs.length}, 0, ${seqs.length}, 0)`,
  );
}

async function insert(db: Database, into: string, rows: readonly (readonly Value[])[]) {
  await db.transaction(async (tx) => {
    for (let start = 0; start < rows.length; start += rowsPerInsert) {
      await tx.execute(buildInsert(into, rows.slice(start, start + rowsPerInsert)));
    }
  });
}

function buildInsert(into: string, rows: readonly (readonly Value[])[]): Sql {
  const texts = [`insert into ${into} values (`];
  for (const [index, row] of rows.entries()) {
    texts.push(...row.slice(1).map(() => ', '), index === rows.length - 1 ? ')' : '), (');
  }
  return { texts, values: rows.flat(), hasVariableArity: true };
}
