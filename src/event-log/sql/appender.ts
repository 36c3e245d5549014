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
 * Writes events to the tables of the event log.
 *
 * Sequence numbers come from the counter in `log_head`, which is updated in the transaction that
 * writes the events. The row lock makes transactions commit in sequence order, which identity columns
 * do not. While no other process writes, this process knows the next number and appends with a single
 * batch of statements.
 *
 * API keys are read after the numbers are taken, in the same transaction. Revoking an API key takes a
 * number too, so each event of the key is either numbered before the revocation or rejected.
 */
export class SqlAppender {
  readonly #db: Database;
  readonly #wallClock: () => number;
  readonly #generation: LogGeneration;
  readonly #keys: PublisherKeys;
  /** Number of the newest entry; undefined when it must be read from the database. */
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
    this.#lastSeq = undefined; // Unknown until the outcome of this append is known.
    const outcomes =
      lastSeq === undefined ? undefined : await this.#appendInBatch(requests, lastSeq);
    if (outcomes !== undefined) return outcomes;
    try {
      return await this.#appendInTransaction(requests);
    } catch (error) {
      if (!(error instanceof UniqueViolation)) throw error;
      // A concurrent request with the same idempotency key has committed, so a retry finds the key.
      return this.#appendInTransaction(requests);
    }
  }

  /**
   * Appends with one batch of statements. Writes nothing and returns undefined when that is impossible:
   * an idempotency key was used before, an API key is revoked, another process has appended, or the
   * database has no batches.
   */
  async #appendInBatch(
    requests: readonly AppendRequest[],
    lastSeq: number,
  ): Promise<readonly AppendOutcome[] | undefined> {
    if (this.#db.batch === undefined) return undefined;
    const now = this.#wallClock();
    const events = requests.flatMap((request) => request.events);
    const { outcomes, keyInserts } = resolveOutcomes(requests, noObstacles, lastSeq + 1, now);
    const keyIds = getKeyIds(requests);
    const areActive = keyIds.length === 0 ? sql`` : sql`and ${this.#keys.areActive(keyIds)}`;
    const isCommitted = await this.#db
      .batch([
        sql`${buildHeadUpdate(events)} and seq = ${lastSeq} and epoch = ${this.#generation.epoch} ${areActive}`,
        ...buildInserts(assignSeqs(events, lastSeq + 1), now),
        ...keyInserts,
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
      const { outcomes, keyInserts } = resolveOutcomes(requests, obstacles, seq + 1, now);
      for (const insert of keyInserts) await tx.execute(insert);
      return { outcomes, lastSeq: seq + events.length };
    });
    this.#generation.observe(lastSeq);
    this.#lastSeq = lastSeq;
    return outcomes;
  }

  /**
   * Takes numbers for the new requests, except for those whose API key is revoked. Returns the head as
   * it was committed before, and the revoked requests.
   */
  async #reserveSeqs(
    tx: Database,
    requests: readonly AppendRequest[],
    newRequests: readonly AppendRequest[],
  ): Promise<{ head: LogHead | undefined; revoked: ReadonlySet<AppendRequest> }> {
    const events = newRequests.flatMap((request) => request.events);
    // Statements are sent together, here and below, because a round trip takes longer than a statement.
    const [, head, revoked] = await Promise.all([
      events.length > 0 && tx.execute(buildHeadUpdate(events)),
      readHead(tx),
      this.#findRevoked(tx, requests),
    ]);
    const revokedRequests = newRequests.filter((request) => revoked.has(request));
    const revokedEvents = revokedRequests.flatMap((request) => request.events);
    if (revokedEvents.length > 0) await tx.execute(buildHeadUpdate(revokedEvents, -1));
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

/** Reasons not to append a request: its idempotency key was used, or its API key is revoked. */
interface Obstacles {
  readonly priorAppends: PriorAppends;
  readonly revoked: ReadonlySet<AppendRequest>;
}

const noObstacles: Obstacles = { priorAppends: noPriorAppends, revoked: nothingRevoked };

/**
 * Returns the outcome of each request, numbering new events from `firstSeq`, and the inserts of their
 * idempotency keys.
 */
function resolveOutcomes(
  requests: readonly AppendRequest[],
  { priorAppends, revoked }: Obstacles,
  firstSeq: number,
  now: number,
): { outcomes: readonly AppendOutcome[]; keyInserts: readonly Sql[] } {
  const outcomes: AppendOutcome[] = [];
  const keyInserts: Sql[] = [];
  let nextSeq = firstSeq;
  for (const request of requests) {
    if (revoked.has(request)) {
      outcomes.push({ kind: 'revoked', firstSeq: 0 });
      continue;
    }
    const prior = findPriorOutcome(priorAppends, request);
    outcomes.push(prior ?? { kind: 'appended', firstSeq: nextSeq });
    if (prior !== undefined) continue;
    keyInserts.push(...buildKeyInserts(request, nextSeq, now));
    nextSeq += request.events.length;
  }
  return { outcomes, keyInserts };
}

function assignSeqs(events: readonly LoggableEvent[], firstSeq: number): NumberedEvent[] {
  return events.map((event, index) => ({ seq: firstSeq + index, event }));
}

/** Builds the update that takes numbers for events or, with the sign -1, gives them back. */
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
