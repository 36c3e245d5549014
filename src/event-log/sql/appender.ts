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
 * Writes events to the tables of the log.
 *
 * Sequence numbers come from the counter in `log_head`, updated in the transaction that writes the
 * events: the row lock makes commit order equal to sequence order, unlike identity columns. A
 * process without concurrent writers knows the next number and appends with one batch.
 */
export class SqlAppender {
  readonly #db: Database;
  readonly #wallClock: () => number;
  readonly #generation: LogGeneration;
  /** The newest sequence number; undefined when it has to be read from the database. */
  #lastSeq: number | undefined;

  constructor(db: Database, wallClock: () => number, generation: LogGeneration) {
    this.#db = db;
    this.#wallClock = wallClock;
    this.#generation = generation;
  }

  /** See `LogStore`. */
  async append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]> {
    const lastSeq = this.#lastSeq;
    this.#lastSeq = undefined; // Unknown until the outcome is.
    const outcomes =
      lastSeq === undefined ? undefined : await this.#appendInBatch(requests, lastSeq);
    if (outcomes !== undefined) return outcomes;
    try {
      return await this.#appendInTransaction(requests);
    } catch (error) {
      if (!(error instanceof UniqueViolation)) throw error;
      // A concurrent request used the same key and has committed, so the retry finds it.
      return this.#appendInTransaction(requests);
    }
  }

  /**
   * Returns undefined and writes nothing when a key was used before or another process has
   * appended.
   */
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

  /** Reserves numbers for these events. Returns the committed head from before. */
  async #reserveSeqs(tx: Database, events: readonly LoggableEvent[]): Promise<LogHead | undefined> {
    if (events.length === 0) return readHead(tx);
    // Pipelined, here and below, because a round trip takes longer than a statement.
    const [, head] = await Promise.all([tx.execute(buildHeadUpdate(events)), readHead(tx)]);
    return head && { ...head, seq: head.seq - events.length };
  }

  async #insert(tx: Database, added: readonly NumberedEvent[], now: number): Promise<void> {
    // Pipelined with the notification, which then costs no round trip.
    const inserting = buildInserts(added, now).map((insert) => tx.execute(insert));
    await Promise.all([...inserting, this.#db.notifier?.notify(tx)]);
  }
}

/** Returns the outcome of each request if new ones are numbered from `first`, and the key inserts. */
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
  const count = events.length;
  return sql`update log_head
    set seq = seq + ${count}, events = events + ${count}, bytes = bytes + ${bytes} where id = 1`;
}

/** Builds the inserts of events and their audiences, with many rows per statement. */
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
