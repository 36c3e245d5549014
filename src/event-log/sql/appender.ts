import { type Database, inserts, type Sql, sql, UniqueViolation } from '../../db/database.js';
import type { AppendOutcome, AppendRequest, KeyRefusal, NumberedEvent } from '../log-store.js';
import { getStoredBytes } from '../stored-size.js';
import { type Obstacles, planAppend } from './append-plan.js';
import { buildKeyInserts, findPriorAppends, type PriorAppends } from './idempotency.js';
import {
  headColumns,
  type KnownLog,
  type LogGeneration,
  type VerifiableHead,
} from './log-generation.js';
import type { PublisherKeys } from './publisher-keys.js';

type Refusals = ReadonlyMap<AppendRequest, KeyRefusal>;

const noRefusals: Refusals = new Map();

/**
 * Writes events to the tables of the event log.
 *
 * Sequence numbers come from the counter in `log_head`, which is updated in the transaction that
 * writes the events. The row lock makes transactions commit in sequence order; identity columns would not.
 * As long as no other process has appended, this process knows the next number, and on SQLite it
 * appends with a single batch of statements.
 *
 * API keys are read after the numbers are taken, in the same transaction. Revoking or changing an API key
 * takes a number too, so each event of the key is either numbered before the change or checked after it.
 * The time at which a key expires is compared with the time of the event.
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

  /** Appends in one transaction, see `LogStore.append`. */
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
      // Another process has committed one of the idempotency keys. The retry locks the row of `log_head`
      // before it reads the keys, so that no other process can commit a key afterwards.
      return this.#appendInTransaction(requests, { locksHeadFirst: true });
    }
  }

  /**
   * Appends with one batch of statements. Writes nothing and returns undefined when that is impossible:
   * an idempotency key was used before, an API key is refused, another process has appended, no event is
   * new, or the database has no batches.
   */
  async #appendInBatch(
    requests: readonly AppendRequest[],
    lastSeq: number,
  ): Promise<readonly AppendOutcome[] | undefined> {
    if (this.#db.batch === undefined) return undefined;
    const now = this.#wallClock();
    const { outcomes, added, keys } = planAppend(requests, noObstacles, lastSeq + 1);
    if (added.length === 0) return undefined;
    const publishers = requests.flatMap(({ publisher }) => publisher ?? []);
    const mayPublish =
      publishers.length === 0 ? sql`` : sql`and ${this.#keys.mayPublish(publishers, now)}`;
    const isCommitted = await this.#db
      .batch([
        sql`${buildHeadUpdate(added)} and seq = ${lastSeq} and epoch = ${this.#generation.known.epoch} ${mayPublish}`,
        ...buildInserts(added, now),
        ...buildKeyInserts(keys, now),
      ])
      .catch((cause: unknown) => {
        if (cause instanceof UniqueViolation) return false;
        throw cause;
      });
    if (!isCommitted) return undefined;
    this.#lastSeq = lastSeq + added.length;
    this.#generation.recordCommit(this.#lastSeq, now);
    return outcomes;
  }

  async #appendInTransaction(
    requests: readonly AppendRequest[],
    { locksHeadFirst = false } = {},
  ): Promise<readonly AppendOutcome[]> {
    const { known } = this.#generation;
    const { outcomes, lastSeq, createdAt } = await this.#db.transaction(async (tx) => {
      const now = this.#wallClock();
      const priorAppends = await findPriorAppends(tx, requests, { now, locksHeadFirst });
      const { head, refusals } = await this.#reserveSeqs(tx, requests, {
        priorAppends,
        known,
        now,
      });
      const { seq } = this.#generation.verify(head, known);
      const { outcomes, added, keys } = planAppend(requests, { priorAppends, refusals }, seq + 1);
      if (added.length > 0) await this.#insert(tx, added, now);
      for (const insert of buildKeyInserts(keys, now)) await tx.execute(insert);
      const createdAt = added.length > 0 ? now : undefined;
      return { outcomes, lastSeq: seq + added.length, createdAt };
    });
    if (createdAt !== undefined) this.#generation.recordCommit(lastSeq, createdAt);
    this.#lastSeq = lastSeq;
    return outcomes;
  }

  /**
   * Takes numbers for the new events, except for events whose API key is refused. Returns the head that was
   * committed before, and the refused requests.
   */
  async #reserveSeqs(
    tx: Database,
    requests: readonly AppendRequest[],
    { priorAppends, known, now }: { priorAppends: PriorAppends; known: KnownLog; now: number },
  ): Promise<{ head: VerifiableHead | undefined; refusals: Refusals }> {
    const { added, outcomes } = planAppend(requests, { priorAppends, refusals: noRefusals }, 0);
    // Statements are sent together, here and below, because a round trip takes longer than a statement.
    const [, [head], refusals] = await Promise.all([
      added.length > 0 && tx.execute(buildHeadUpdate(added)),
      tx.query<VerifiableHead>(sql`select ${headColumns(known)} from log_head where id = 1`),
      this.#findRefusals(tx, requests, now),
    ]);
    const refused = outcomes.flatMap((outcome, index) => {
      const request = requests[index];
      const isRefused =
        request !== undefined && refusals.has(request) && outcome.kind === 'appended';
      return isRefused ? outcome.added : [];
    });
    if (refused.length > 0) await tx.execute(buildHeadUpdate(refused, -1)); // Their API key is refused.
    return { head: head && { ...head, seq: head.seq - added.length }, refusals };
  }

  async #findRefusals(
    tx: Database,
    requests: readonly AppendRequest[],
    now: number,
  ): Promise<Refusals> {
    const withKey = requests.filter(({ publisher }) => publisher !== undefined);
    if (withKey.length === 0) return noRefusals;
    const publishers = withKey.flatMap(({ publisher }) => publisher ?? []);
    const reasons = await this.#keys.findRefusals(tx, publishers, now);
    const refusals = new Map<AppendRequest, KeyRefusal>();
    for (const [index, request] of withKey.entries()) {
      const reason = reasons[index];
      if (reason !== undefined) refusals.set(request, reason);
    }
    return refusals;
  }

  async #insert(tx: Database, added: readonly NumberedEvent[], now: number): Promise<void> {
    // The notification is sent together with the inserts, so it costs no extra round trip.
    const inserting = buildInserts(added, now).map((insert) => tx.execute(insert));
    await Promise.all([...inserting, this.#db.notifier?.notify(tx)]);
  }
}

const noObstacles: Obstacles = { priorAppends: new Map(), refusals: noRefusals };

/** Builds the update that takes numbers for events or, with the sign -1, gives them back. */
function buildHeadUpdate(added: readonly NumberedEvent[], sign: 1 | -1 = 1): Sql {
  const bytes = sign * added.reduce((sum, { event }) => sum + getStoredBytes(event), 0);
  const count = sign * added.length;
  return sql`update log_head
    set seq = seq + ${count}, events = events + ${count}, bytes = bytes + ${bytes} where id = 1`;
}

/** Builds the inserts of events and their audiences, with many rows per statement. */
function buildInserts(added: readonly NumberedEvent[], now: number): Sql[] {
  const rows = added.map(({ seq, event }) => {
    const { type = null, topic = null, data, expiresAt = null } = event;
    return [seq, type, topic, data, getStoredBytes(event), now, expiresAt];
  });
  const recipients = added.flatMap(({ seq, event }) =>
    event.audiences.map((audience) => [audience, seq]),
  );
  return [
    ...inserts(
      sql`insert into events (seq, type, topic, data, bytes, created_at, expires_at) values `,
      rows,
    ),
    ...inserts(sql`insert into event_audiences (audience, seq) values `, recipients),
  ];
}
