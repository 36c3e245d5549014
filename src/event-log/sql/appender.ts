import { type Database, inserts, type Sql, sql, UniqueViolation } from '../../db/database.js';
import type { AppendOutcome, AppendRequest, LoggableEvent } from '../log-store.js';
import { type Earlier, earlierOf, insertOfKey, outcomeBefore } from './idempotency.js';
import { headOf, type LogHead, type LogIdentity } from './log-generation.js';

interface NumberedEvent {
  readonly seq: number;
  readonly event: LoggableEvent;
}

const nothingEarlier: Earlier = new Map();

/**
 * Writes events into the tables of the log.
 *
 * Numbers come from the counter row of `log_head` in the transaction that writes the events: its
 * lock makes the order of commits the order of numbers, which identity columns do not. A process
 * that has the database to itself knows the next number, and asks the database once.
 */
export class TableAppender {
  readonly #db: Database;
  readonly #clock: () => number;
  readonly #identity: LogIdentity;
  /** The number of the newest event; undefined when only the database knows. */
  #newest: number | undefined;

  constructor(db: Database, clock: () => number, identity: LogIdentity) {
    this.#db = db;
    this.#clock = clock;
    this.#identity = identity;
  }

  /** See `LogStore`. */
  async append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]> {
    const newest = this.#newest;
    this.#newest = undefined; // Until it is known what came of this.
    const atOnce = newest === undefined ? undefined : await this.#appendAtOnce(requests, newest);
    if (atOnce !== undefined) return atOnce;
    try {
      return await this.#appendWithCare(requests);
    } catch (error) {
      if (!(error instanceof UniqueViolation)) throw error;
      // Somebody else used the same key at the same time, and has committed: now it is seen.
      return this.#appendWithCare(requests);
    }
  }

  /** Undefined, and nothing is written, when there is more to it: a key used before, another writer. */
  async #appendAtOnce(
    requests: readonly AppendRequest[],
    newest: number,
  ): Promise<readonly AppendOutcome[] | undefined> {
    if (this.#db.batch === undefined) return undefined;
    const now = this.#clock();
    const events = requests.flatMap((request) => request.events);
    const { outcomes, keys } = settle(requests, nothingEarlier, newest + 1, now);
    const isDone = await this.#db
      .batch([
        sql`${moveOfCounter(events)} and seq = ${newest} and epoch = ${this.#identity.epoch}`,
        ...insertsOf(numbered(events, newest + 1), now),
        ...keys,
      ])
      .catch((cause: unknown) => {
        if (cause instanceof UniqueViolation) return false;
        throw cause;
      });
    if (!isDone) return undefined;
    this.#newest = newest + events.length;
    return outcomes;
  }

  async #appendWithCare(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]> {
    const atLeast = this.#identity.seq;
    const { outcomes, newest } = await this.#db.transaction(async (tx) => {
      const now = this.#clock();
      const earlier = await earlierOf(tx, requests, now);
      const fresh = requests.filter((request) => outcomeBefore(earlier, request) === undefined);
      const events = fresh.flatMap((request) => request.events);
      const before = await this.#moveHead(tx, events);
      const { seq } = this.#identity.check(before, atLeast);
      if (events.length > 0) await this.#write(tx, numbered(events, seq + 1), now);
      const { outcomes, keys } = settle(requests, earlier, seq + 1, now);
      for (const key of keys) await tx.execute(key);
      return { outcomes, newest: seq + events.length };
    });
    this.#identity.note(newest);
    this.#newest = newest;
    return outcomes;
  }

  /** Takes numbers for these events. Answers where the head was before, which is committed. */
  async #moveHead(tx: Database, events: readonly LoggableEvent[]): Promise<LogHead | undefined> {
    if (events.length === 0) return headOf(tx);
    // Together, here and below: each wait for a database is longer than what it does meanwhile.
    const [, head] = await Promise.all([tx.execute(moveOfCounter(events)), headOf(tx)]);
    return head && { ...head, seq: head.seq - events.length };
  }

  async #write(tx: Database, added: readonly NumberedEvent[], now: number): Promise<void> {
    // With the announcement, which costs no round trip then.
    const inserting = insertsOf(added, now).map((insert) => tx.execute(insert));
    await Promise.all([...inserting, this.#db.wakeUps?.announce(tx)]);
  }
}

/** What each request comes to, when the new ones are numbered from `first`; and their keys, to insert. */
function settle(
  requests: readonly AppendRequest[],
  earlier: Earlier,
  first: number,
  now: number,
): { outcomes: readonly AppendOutcome[]; keys: readonly Sql[] } {
  const outcomes: AppendOutcome[] = [];
  const keys: Sql[] = [];
  let next = first;
  for (const request of requests) {
    const before = outcomeBefore(earlier, request);
    outcomes.push(before ?? { kind: 'appended', firstSeq: next });
    if (before !== undefined) continue;
    keys.push(...insertOfKey(request, next, now));
    next += request.events.length;
  }
  return { outcomes, keys };
}

function numbered(events: readonly LoggableEvent[], first: number): NumberedEvent[] {
  return events.map((event, index) => ({ seq: first + index, event }));
}

function moveOfCounter(events: readonly LoggableEvent[]): Sql {
  const bytes = events.reduce((sum, event) => sum + Buffer.byteLength(event.data), 0);
  return sql`update log_head set seq = seq + ${events.length}, bytes = bytes + ${bytes} where id = 1`;
}

/** Of the events and of their audiences, many rows at a time. */
function insertsOf(added: readonly NumberedEvent[], now: number): Sql[] {
  const rows = added.map(({ seq, event: { type, data, expiresAt } }) => {
    return [seq, type ?? null, data, now, expiresAt ?? null];
  });
  const addresses = added.flatMap(({ seq, event }) =>
    event.audiences.map((audience) => [audience, seq]),
  );
  return [
    ...inserts(sql`insert into events (seq, type, data, created_at, expires_at) values `, rows),
    ...inserts(sql`insert into event_audiences (audience, seq) values `, addresses),
  ];
}
