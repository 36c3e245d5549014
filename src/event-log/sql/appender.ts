import { type Database, inserts, type Sql, sql, UniqueViolation } from '../../db/database.js';
import type { AppendOutcome, AppendRequest, LoggableEvent } from '../log-store.js';
import {
  buildKeyInserts,
  findPriorAppends,
  findPriorOutcome,
  type PriorAppends,
} from './idempotency.js';
import { type LogGeneration, type LogHead, readHead } from './log-generation.js';

interface NumberedEvent {
  readonly seq: number;
  readonly event: LoggableEvent;
}

const noPriorAppends: PriorAppends = new Map();

/**
 * Writes events into the tables of the log.
 *
 * Numbers come from the counter row of `log_head` in the transaction that writes the events: its
 * lock makes the order of commits the order of numbers, which identity columns do not. A process
 * that has the database to itself knows the next number, and asks the database once.
 */
export class SqlAppender {
  readonly #db: Database;
  readonly #wallClock: () => number;
  readonly #generation: LogGeneration;
  /** The number of the newest event; undefined when only the database knows. */
  #lastSeq: number | undefined;

  constructor(db: Database, wallClock: () => number, generation: LogGeneration) {
    this.#db = db;
    this.#wallClock = wallClock;
    this.#generation = generation;
  }

  /** See `LogStore`. */
  async append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]> {
    const lastSeq = this.#lastSeq;
    this.#lastSeq = undefined; // Until it is known what came of this.
    const outcomes =
      lastSeq === undefined ? undefined : await this.#appendInBatch(requests, lastSeq);
    if (outcomes !== undefined) return outcomes;
    try {
      return await this.#appendInTransaction(requests);
    } catch (error) {
      if (!(error instanceof UniqueViolation)) throw error;
      // Somebody else used the same key at the same time, and has committed: now it is seen.
      return this.#appendInTransaction(requests);
    }
  }

  /** Undefined, and nothing is written, when there is more to it: a key used before, another writer. */
  async #appendInBatch(
    requests: readonly AppendRequest[],
    lastSeq: number,
  ): Promise<readonly AppendOutcome[] | undefined> {
    if (this.#db.batch === undefined) return undefined;
    const now = this.#wallClock();
    const events = requests.flatMap((request) => request.events);
    const { outcomes, keys } = resolveOutcomes(requests, noPriorAppends, lastSeq + 1, now);
    const isCommitted = await this.#db
      .batch([
        sql`${buildHeadUpdate(events)} and seq = ${lastSeq} and epoch = ${this.#generation.epoch}`,
        ...buildInserts(assignSeqs(events, lastSeq + 1), now),
        ...keys,
      ])
      .catch((cause: unknown) => {
        if (cause instanceof UniqueViolation) return false;
        throw cause;
      });
    if (!isCommitted) return undefined;
    this.#lastSeq = lastSeq + events.length;
    return outcomes;
  }

  async #appendInTransaction(
    requests: readonly AppendRequest[],
  ): Promise<readonly AppendOutcome[]> {
    const committedSeq = this.#generation.seq;
    const { outcomes, lastSeq } = await this.#db.transaction(async (tx) => {
      const now = this.#wallClock();
      const priorAppends = await findPriorAppends(tx, requests, now);
      const newRequests = requests.filter(
        (request) => findPriorOutcome(priorAppends, request) === undefined,
      );
      const events = newRequests.flatMap((request) => request.events);
      const head = await this.#reserveSeqs(tx, events);
      const { seq } = this.#generation.verify(head, committedSeq);
      if (events.length > 0) await this.#insert(tx, assignSeqs(events, seq + 1), now);
      const { outcomes, keys } = resolveOutcomes(requests, priorAppends, seq + 1, now);
      for (const key of keys) await tx.execute(key);
      return { outcomes, lastSeq: seq + events.length };
    });
    this.#generation.observe(lastSeq);
    this.#lastSeq = lastSeq;
    return outcomes;
  }

  /** Takes numbers for these events. Answers where the head was before, which is committed. */
  async #reserveSeqs(tx: Database, events: readonly LoggableEvent[]): Promise<LogHead | undefined> {
    if (events.length === 0) return readHead(tx);
    // Together, here and below: each wait for a database is longer than what it does meanwhile.
    const [, head] = await Promise.all([tx.execute(buildHeadUpdate(events)), readHead(tx)]);
    return head && { ...head, seq: head.seq - events.length };
  }

  async #insert(tx: Database, added: readonly NumberedEvent[], now: number): Promise<void> {
    // With the announcement, which costs no round trip then.
    const inserting = buildInserts(added, now).map((insert) => tx.execute(insert));
    await Promise.all([...inserting, this.#db.notifier?.notify(tx)]);
  }
}

/** What each request comes to, when the new ones are numbered from `first`; and their keys, to insert. */
function resolveOutcomes(
  requests: readonly AppendRequest[],
  priorAppends: PriorAppends,
  first: number,
  now: number,
): { outcomes: readonly AppendOutcome[]; keys: readonly Sql[] } {
  const outcomes: AppendOutcome[] = [];
  const keys: Sql[] = [];
  let next = first;
  for (const request of requests) {
    const prior = findPriorOutcome(priorAppends, request);
    outcomes.push(prior ?? { kind: 'appended', firstSeq: next });
    if (prior !== undefined) continue;
    keys.push(...buildKeyInserts(request, next, now));
    next += request.events.length;
  }
  return { outcomes, keys };
}

function assignSeqs(events: readonly LoggableEvent[], first: number): NumberedEvent[] {
  return events.map((event, index) => ({ seq: first + index, event }));
}

function buildHeadUpdate(events: readonly LoggableEvent[]): Sql {
  const bytes = events.reduce((sum, event) => sum + Buffer.byteLength(event.data), 0);
  return sql`update log_head set seq = seq + ${events.length}, bytes = bytes + ${bytes} where id = 1`;
}

/** Of the events and of their audiences, many rows at a time. */
function buildInserts(added: readonly NumberedEvent[], now: number): Sql[] {
  const rows = added.map(({ seq, event: { type, data, expiresAt } }) => {
    return [seq, type ?? null, data, now, expiresAt ?? null];
  });
  const recipients = added.flatMap(({ seq, event }) =>
    event.audiences.map((audience) => [audience, seq]),
  );
  return [
    ...inserts(sql`insert into events (seq, type, data, created_at, expires_at) values `, rows),
    ...inserts(sql`insert into event_audiences (audience, seq) values `, recipients),
  ];
}
