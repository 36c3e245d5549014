import { type Database, inserts, type Sql, sql, UniqueViolation } from '../../db/database.js';
import type { AppendOutcome, AppendRequest, LoggableEvent } from '../log-store.js';
import {
  buildKeyInserts,
  findPriorAppends,
  findPriorOutcome,
  type PriorAppends,
} from './idempotency.js';
import { type LogGeneration, type LogHead, readHead } from './log-generation.js';
import { getKeyIds, type PublisherKeys } from './publisher-keys.js';

interface NumberedEvent {
  readonly seq: number;
  readonly event: LoggableEvent;
}

const noPriorAppends: PriorAppends = new Map();
const nothingRevoked: ReadonlySet<AppendRequest> = new Set();

/**
 * Writes events to the tables of the log.
 *
 * Numbers come from the counter row of `log_head` in the transaction that writes the events: its
 * lock makes the order of commits the order of numbers, which identity columns do not. A process
 * that has the database to itself knows the next number, and asks the database once.
 *
 * API keys are read after the numbers are taken, in the same transaction. Revoking one takes a number,
 * too, so what a key published is either numbered before its revocation or refused.
 */
export class SqlAppender {
  readonly #db: Database;
  readonly #wallClock: () => number;
  readonly #generation: LogGeneration;
  readonly #keys: PublisherKeys;
  /** The number of the newest entry; undefined when only the database knows. */
  #lastSeq: number | undefined;

  constructor(
    db: Database,
    wallClock: () => number,
    generation: LogGeneration,
    keys: PublisherKeys,
  ) {
    this.#db = db;
    this.#wallClock = wallClock;
    this.#generation = generation;
    this.#keys = keys;
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

  /** Undefined, and nothing is written, when there is more to it: a key used before, one revoked, another writer. */
  async #appendInBatch(
    requests: readonly AppendRequest[],
    lastSeq: number,
  ): Promise<readonly AppendOutcome[] | undefined> {
    if (this.#db.batch === undefined) return undefined;
    const now = this.#wallClock();
    const events = requests.flatMap((request) => request.events);
    const { outcomes, keys } = resolveOutcomes(requests, noObstacles, lastSeq + 1, now);
    const keyIds = getKeyIds(requests);
    const areActive = keyIds.length === 0 ? sql`` : sql`and ${this.#keys.areActive(keyIds)}`;
    const isCommitted = await this.#db
      .batch([
        sql`${buildHeadUpdate(events)} and seq = ${lastSeq} and epoch = ${this.#generation.epoch} ${areActive}`,
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
      const { head, revoked } = await this.#reserveSeqs(tx, requests, newRequests);
      const { seq } = this.#generation.verify(head, committedSeq);
      const events = newRequests
        .filter((request) => !revoked.has(request))
        .flatMap((request) => request.events);
      if (events.length > 0) await this.#insert(tx, assignSeqs(events, seq + 1), now);
      const obstacles = { priorAppends, revoked };
      const { outcomes, keys } = resolveOutcomes(requests, obstacles, seq + 1, now);
      for (const key of keys) await tx.execute(key);
      return { outcomes, lastSeq: seq + events.length };
    });
    this.#generation.observe(lastSeq);
    this.#lastSeq = lastSeq;
    return outcomes;
  }

  /**
   * Takes numbers for the new requests, but for those whose API key is revoked by then. Answers where
   * the head was before, which is committed.
   */
  async #reserveSeqs(
    tx: Database,
    requests: readonly AppendRequest[],
    newRequests: readonly AppendRequest[],
  ): Promise<{ head: LogHead | undefined; revoked: ReadonlySet<AppendRequest> }> {
    const events = newRequests.flatMap((request) => request.events);
    // Together, here and below: each wait for a database is longer than what it does meanwhile.
    const [, head, revoked] = await Promise.all([
      events.length > 0 && tx.execute(buildHeadUpdate(events)),
      readHead(tx),
      this.#findRevoked(tx, requests),
    ]);
    const refused = newRequests.filter((request) => revoked.has(request));
    const refusedEvents = refused.flatMap((request) => request.events);
    if (refusedEvents.length > 0) await tx.execute(buildHeadUpdate(refusedEvents, -1));
    return { head: head && { ...head, seq: head.seq - events.length }, revoked };
  }

  async #findRevoked(
    tx: Database,
    requests: readonly AppendRequest[],
  ): Promise<ReadonlySet<AppendRequest>> {
    const keyIds = getKeyIds(requests);
    if (keyIds.length === 0) return nothingRevoked;
    const active = new Set(await this.#keys.findActive(tx, keyIds));
    return new Set(requests.filter(({ keyId }) => keyId !== undefined && !active.has(keyId)));
  }

  async #insert(tx: Database, added: readonly NumberedEvent[], now: number): Promise<void> {
    // Pipelined with the notification, which then costs no round trip.
    const inserting = buildInserts(added, now).map((insert) => tx.execute(insert));
    await Promise.all([...inserting, this.#db.notifier?.notify(tx)]);
  }
}

/** What keeps requests from being appended. */
interface Obstacles {
  readonly priorAppends: PriorAppends;
  readonly revoked: ReadonlySet<AppendRequest>;
}

const noObstacles: Obstacles = { priorAppends: noPriorAppends, revoked: nothingRevoked };

/** What each request comes to, when the new ones are numbered from `first`; and their keys, to insert. */
function resolveOutcomes(
  requests: readonly AppendRequest[],
  { priorAppends, revoked }: Obstacles,
  first: number,
  now: number,
): { outcomes: readonly AppendOutcome[]; keys: readonly Sql[] } {
  const outcomes: AppendOutcome[] = [];
  const keys: Sql[] = [];
  let next = first;
  for (const request of requests) {
    if (revoked.has(request)) {
      outcomes.push({ kind: 'revoked', firstSeq: 0 });
      continue;
    }
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

function buildHeadUpdate(events: readonly LoggableEvent[], sign: 1 | -1 = 1): Sql {
  const bytes = sign * events.reduce((sum, event) => sum + Buffer.byteLength(event.data), 0);
  const count = sign * events.length;
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
