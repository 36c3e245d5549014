import { type Database, type Sql, type Subscription, sql } from '../../db/database.js';
import type { Reader } from '../../events/topic.js';
import type {
  AppendOutcome,
  AppendRequest,
  LoggedRange,
  LogState,
  LogStore,
  PageLimits,
  Publisher,
  PublishSnapshot,
  SeqRange,
  StoredPage,
  TrimBatchLimits,
  TrimCandidate,
  TrimRange,
} from '../log-store.js';
import { storedBytesMax } from '../stored-size.js';
import { SqlAppender } from './appender.js';
import { sweepIdempotencyKeys } from './idempotency.js';
import {
  confirmReplacement,
  headColumns,
  type KnownLog,
  LogGeneration,
  type LogHead,
  readHead,
  type VerifiableHead,
} from './log-generation.js';
import { type EventRow, PageReader, toLoggedEvent } from './page-reader.js';
import { noPublisherKeys, type PublisherKeys } from './publisher-keys.js';
import { trimRange } from './trim.js';
import { findLastTrimmedSeqOfAudiences } from './trimmed-audiences.js';
import { findLastTrimmedSeqOfTopics } from './trimmed-topics.js';

export interface SqlLogStoreOptions {
  readonly wallClock: () => number;
  /** Epoch of a new event log. An event log whose counter went back gets this epoch with the suffix `r`. */
  readonly newEpoch: string;
  /** Called once when the stored event log was replaced. Must not throw. */
  readonly onReplaced?: () => void;
  /** Checks the API keys of requests. By default none is refused. */
  readonly keys?: PublisherKeys;
}

interface EntryRow extends EventRow {
  /** Null for an event. */
  readonly control: string | null;
}

interface StateRow extends VerifiableHead {
  readonly trimmed_seq: number;
  readonly events: number;
  readonly bytes: number;
}

/**
 * Selects the size of an entry, see `getStoredBytes`. The column is null for control entries, and for events of
 * version 0.1.
 */
const storedBytes = sql`coalesce(bytes, octet_length(data))`;

/** Selects how much is read of an entry: a control entry does not count for retention, but has a text. */
const readBytes = sql`${storedBytes} + coalesce(octet_length(control), 0)`;

/**
 * Stores the event log in tables of a `Database`: `log_head`, `events`, `event_audiences`,
 * `idempotency`, `trimmed_audiences` and `trimmed_topics`. Once the stored event log has been replaced (see
 * `LogGeneration`), `readState`, `readPublishSnapshot`, `read` and `append` throw `service_unavailable`.
 */
export class SqlLogStore implements LogStore {
  /** False for the embedded database, which only one server process uses. */
  readonly isShared: boolean;
  readonly #db: Database;
  /** The same database with the share for background work: for polling and trimming the event log. */
  readonly #background: Database;
  readonly #generation: LogGeneration;
  readonly #keys: PublisherKeys;
  readonly #wallClock: () => number;
  readonly #appender: SqlAppender;
  readonly #pages: PageReader;

  private constructor(
    db: Database,
    wallClock: () => number,
    generation: LogGeneration,
    keys: PublisherKeys,
  ) {
    this.isShared = db.dialect !== 'sqlite';
    this.#db = db;
    this.#background = db.background ?? db;
    this.#generation = generation;
    this.#keys = keys;
    this.#wallClock = wallClock;
    this.#appender = new SqlAppender(db, wallClock, generation, keys);
    this.#pages = new PageReader(db, generation);
  }

  /** Opens the event log. Creates it with the epoch `newEpoch` if the database has none. */
  static async open(
    db: Database,
    { wallClock, newEpoch, onReplaced = () => {}, keys = noPublisherKeys }: SqlLogStoreOptions,
  ): Promise<SqlLogStore> {
    const head = (await readHead(db)) ?? (await createLog(db, newEpoch));
    const generation = new LogGeneration(head, {
      confirmReplacement: (known) => confirmReplacement(db, known, `${newEpoch}r`),
      onReplaced,
    });
    return new SqlLogStore(db, wallClock, generation, keys);
  }

  async readState(): Promise<LogState> {
    return toLogState(
      await this.#observe<StateRow>(
        this.#background,
        (known) =>
          sql`select ${headColumns(known)}, trimmed_seq, events, bytes from log_head where id = 1`,
      ),
    );
  }

  append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]> {
    return this.#appender.append(requests);
  }

  async readPublishSnapshot(publisher: Publisher | undefined): Promise<PublishSnapshot> {
    const now = this.#wallClock();
    const mayPublish =
      publisher === undefined ? sql`1 = 1` : this.#keys.mayPublish([publisher], now);
    const { seq, may_publish } = await this.#observe<LogHead & { readonly may_publish: number }>(
      this.#db,
      () => sql`select epoch, seq, case when ${mayPublish} then 1 else 0 end as may_publish
        from log_head where id = 1`,
    );
    if (publisher === undefined || may_publish === 1) return { seq, refusal: undefined };
    const [refusal] = await this.#keys.findRefusals(this.#db, [publisher], now);
    // The reason is read after the snapshot, so another change may have removed it meanwhile.
    return { seq, refusal: refusal ?? 'limits_changed' };
  }

  read(reader: Reader, range: SeqRange, limits: PageLimits): Promise<StoredPage> {
    return this.#pages.read(reader, range, limits);
  }

  async readAll({ after, upTo: rangeEnd }: SeqRange, bytesMax: number): Promise<LoggedRange> {
    const isSmall = (rangeEnd - after) * storedBytesMax <= bytesMax; // Then no query for the end is needed.
    const upTo = isSmall ? rangeEnd : await this.#findRangeEnd(after, rangeEnd, bytesMax);
    // Audiences are read first. If an event is trimmed between the queries, it is then missing, which
    // callers detect as a gap. In the opposite order the event would have no audiences.
    const audienceRows = await this.#background.query<{ audience: string; seq: number }>(
      sql`select audience, seq from event_audiences
        where seq > ${after} and seq <= ${upTo} order by seq`,
    );
    const rows = await this.#background.query<EntryRow>(
      sql`select seq, type, topic, data, expires_at, control from events
        where seq > ${after} and seq <= ${upTo} order by seq`,
    );
    const audiencesBySeq = new Map<number, string[]>();
    for (const { audience, seq } of audienceRows) {
      const audiences = audiencesBySeq.get(seq);
      if (audiences === undefined) audiencesBySeq.set(seq, [audience]);
      else audiences.push(audience);
    }
    const entries = rows.map(({ control, ...row }) =>
      control === null
        ? toLoggedEvent(row, audiencesBySeq.get(row.seq) ?? [])
        : { seq: row.seq, control },
    );
    this.#generation.recordEntry(rows.at(-1)?.seq ?? 0);
    return { entries, upTo };
  }

  async findLastTrimmedSeq({ audiences, topics }: Reader, after: number): Promise<number> {
    const [ofAudiences, ofTopics] = await Promise.all([
      findLastTrimmedSeqOfAudiences(this.#db, audiences),
      findLastTrimmedSeqOfTopics(this.#db, topics, after),
    ]);
    return ofAudiences > after ? Math.max(ofAudiences, ofTopics) : ofTopics;
  }

  async readOldestEntries(
    after: number,
    { entriesMax, recipientsMax }: TrimBatchLimits,
  ): Promise<TrimCandidate[]> {
    const [firstRowBeyond] = await this.#background.query<{ seq: number }>(
      sql`select seq from event_audiences
        where seq > ${after} order by seq limit 1 offset ${recipientsMax}`,
    );
    const lastFittingSeq = Math.max(
      (firstRowBeyond?.seq ?? Number.POSITIVE_INFINITY) - 1,
      after + 1,
    );
    const upTo = Math.min(lastFittingSeq, after + entriesMax); // Sequence numbers have no gaps.
    interface Row {
      readonly seq: number;
      readonly created_at: number;
      readonly bytes: number;
      readonly is_control: number;
    }
    const rows = await this.#background.query<Row>(
      sql`select seq, created_at, ${storedBytes} as bytes,
          case when control is null then 0 else 1 end as is_control
        from events where seq > ${after} and seq <= ${upTo} order by seq`,
    );
    return rows.map(({ seq, created_at: createdAt, bytes, is_control }) => {
      return { seq, createdAt, bytes, isControlEntry: is_control === 1 };
    });
  }

  trim(range: TrimRange): Promise<number> {
    return trimRange(this.#background, range);
  }

  sweepIdempotencyKeys(now: number): Promise<number> {
    return sweepIdempotencyKeys(this.#background, now);
  }

  listen(onAppended: () => void): Subscription | undefined {
    return this.#db.notifier?.subscribe(onAppended);
  }

  /** Returns the number of the entry that reaches `bytesMax`, or `rangeEnd` if none does. */
  async #findRangeEnd(after: number, rangeEnd: number, bytesMax: number): Promise<number> {
    const [row] = await this.#background.query<{ seq: number | null }>(
      sql`select min(seq) as seq from (
          select seq, sum(${readBytes}) over (order by seq) as total from events
          where seq > ${after} and seq <= ${rangeEnd}
        ) sized where total >= ${bytesMax}`,
    );
    return row?.seq ?? rangeEnd;
  }

  async #observe<Row extends VerifiableHead>(
    db: Database,
    toQuery: (known: KnownLog) => Sql,
  ): Promise<Row> {
    const { known } = this.#generation;
    const [row] = await db.query<Row>(toQuery(known));
    return this.#generation.observe(row, known);
  }
}

async function createLog(db: Database, epoch: string): Promise<LogHead> {
  try {
    await db.execute(
      sql`insert into log_head (id, epoch, seq, trimmed_seq, events, bytes)
        values (1, ${epoch}, 0, 0, 0, 0)`,
    );
    return { epoch, seq: 0 };
  } catch (cause) {
    // Another process may have created the event log at the same time. Then its row is used.
    const head = await readHead(db);
    if (head === undefined) throw cause;
    return head;
  }
}

function toLogState({ epoch, seq, trimmed_seq, events, bytes }: StateRow): LogState {
  return { epoch, seq, trimmedSeq: trimmed_seq, eventCount: events, bytes };
}
