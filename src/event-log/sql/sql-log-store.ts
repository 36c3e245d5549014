import { type Database, list, type Sql, type Subscription, sql } from '../../db/database.js';
import type { Audience } from '../../events/audience.js';
import type {
  AppendOutcome,
  AppendRequest,
  LoggedEvent,
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
import { noPublisherKeys, type PublisherKeys } from './publisher-keys.js';
import { trimRange } from './trim.js';
import { findLastTrimmedSeq } from './trimmed-audiences.js';

export interface SqlLogStoreOptions {
  readonly wallClock: () => number;
  /** Epoch of a new event log. An event log whose counter went back gets this epoch with the suffix `r`. */
  readonly newEpoch: string;
  /** Called once when the stored event log was replaced. Must not throw. */
  readonly onReplaced?: () => void;
  /** Checks the API keys of requests. By default none is refused. */
  readonly keys?: PublisherKeys;
}

interface EventRow {
  readonly seq: number;
  readonly type: string | null;
  readonly data: string;
  readonly expires_at: number | null;
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

interface HeadRow {
  readonly epoch: string;
  readonly head_seq: number;
  readonly trimmed_seq: number;
}

interface PageRow extends Omit<EventRow, 'data'> {
  readonly bytes: number;
  /** Null for large data, which is read separately. */
  readonly data: string | null;
}

/**
 * Selects the size of an entry, see `getStoredBytes`. The column is null for control entries, and for events of
 * version 0.1.
 */
const storedBytes = sql`coalesce(bytes, octet_length(data))`;

/**
 * Stores the event log in tables of a `Database`: `log_head`, `events`, `event_audiences`,
 * `idempotency` and `trimmed_audiences`. Once the stored event log has been replaced (see
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

  /**
   * Merges one limited index range per audience, so the cost depends on the number of events for the
   * reader, not on the number of all events. Small data is read together with the sizes. Large data is read only
   * for the events of the page, so that little more than the page is transferred.
   */
  async read(
    audiences: readonly Audience[],
    range: SeqRange,
    limits: PageLimits,
  ): Promise<StoredPage> {
    const { rows, trimmedSeq } = await this.#readRows(audiences, range, limits);
    const page = takePage(rows, limits.bytesMax);
    const hasMore = rows.length === limits.eventsMax || page.length < rows.length;
    const largeData = await this.#readData(page.filter(({ data }) => data === null));
    const trimmedMeanwhile = page.findLast(({ seq, data }) => data === null && !largeData.has(seq));
    const events = page.flatMap((row) => {
      const data = row.data ?? largeData.get(row.seq);
      return data === undefined ? [] : toLoggedEvent({ ...row, data }, []);
    });
    return { events, hasMore, trimmedSeq: Math.max(trimmedSeq, trimmedMeanwhile?.seq ?? 0) };
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
      sql`select seq, type, data, expires_at, control from events
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

  findLastTrimmedSeq(audiences: readonly Audience[]): Promise<number> {
    return findLastTrimmedSeq(this.#db, audiences);
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

  /** Returns the number of the event that reaches `bytesMax`, or `rangeEnd` if none does. */
  async #findRangeEnd(after: number, rangeEnd: number, bytesMax: number): Promise<number> {
    const [row] = await this.#background.query<{ seq: number | null }>(
      sql`select min(seq) as seq from (
          select seq, sum(${storedBytes}) over (order by seq) as total from events
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

  /**
   * Reads the rows of a page, and in the same snapshot the number up to which the event log is trimmed. The
   * inner query has the limit, and the outer query repeats the range, because otherwise PostgreSQL plans for a
   * full page per audience and scans `events` from its beginning.
   */
  async #readRows(
    audiences: readonly Audience[],
    { after, upTo }: SeqRange,
    { eventsMax: limit, bytesMax }: PageLimits,
  ): Promise<{ rows: PageRow[]; trimmedSeq: number }> {
    // Twice the average size of an event in a page that reaches both limits.
    const smallBytesMax = Math.floor((2 * bytesMax) / limit);
    const ranges = union(
      audiences,
      (audience) => sql`select seq from event_audiences
        where audience = ${audience} and seq > ${after} and seq <= ${upTo}
        order by seq limit ${limit}`,
    );
    const { known } = this.#generation;
    const rows = await this.#db.query<HeadRow & (PageRow | { readonly seq: null })>(
      sql`select log_head.epoch, log_head.seq as head_seq, log_head.trimmed_seq, page.*
        from log_head left join (
          select e.seq, e.type, e.expires_at, octet_length(e.data) as bytes,
            case when octet_length(e.data) <= ${smallBytesMax} then e.data end as data
          from (select seq from (${ranges}) found order by seq limit ${limit}) visible
          join events e on e.seq = visible.seq
          where e.seq > ${after} and e.seq <= ${upTo}
        ) page on 1 = 1
        where log_head.id = 1 order by page.seq`,
    );
    const [head] = rows;
    this.#generation.observe(head && { epoch: head.epoch, seq: head.head_seq }, known);
    return {
      rows: rows.flatMap((row) => (row.seq === null ? [] : row)),
      trimmedSeq: head?.trimmed_seq ?? 0,
    };
  }

  async #readData(rows: readonly PageRow[]): Promise<ReadonlyMap<number, string>> {
    if (rows.length === 0) return new Map();
    const found = await this.#db.query<{ seq: number; data: string }>(
      sql`select seq, data from events where seq in (${list(rows.map(({ seq }) => seq))})`,
    );
    return new Map(found.map(({ seq, data }) => [seq, data]));
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

function toLoggedEvent(row: EventRow, audiences: readonly Audience[]): LoggedEvent {
  return {
    seq: row.seq,
    audiences,
    type: row.type ?? undefined,
    data: row.data,
    expiresAt: row.expires_at ?? undefined,
  };
}

/** Returns the first rows, up to and including the row that reaches `bytesMax`; at least one row. */
function takePage(rows: readonly PageRow[], bytesMax: number): PageRow[] {
  const page: PageRow[] = [];
  let bytesBefore = 0;
  for (const row of rows) {
    if (bytesBefore >= bytesMax) break;
    page.push(row);
    bytesBefore += row.bytes;
  }
  return page;
}

/** Builds the union of one index range per audience. */
function union(audiences: readonly Audience[], range: (audience: Audience) => Sql): Sql {
  return audiences
    .map((audience, index) => sql`select seq from (${range(audience)}) ${alias(index)}`)
    .reduce((all, part) => sql`${all} union ${part}`);
}

/** Returns a distinct alias, because derived tables need one. */
function alias(index: number): Sql {
  return { texts: [`range_${index}`], values: [] };
}
