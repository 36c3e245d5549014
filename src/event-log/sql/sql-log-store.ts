import { type Database, list, type Sql, type Subscription, sql } from '../../db/database.js';
import type { Audience } from '../../events/audience.js';
import type {
  AppendOutcome,
  AppendRequest,
  LoggedEvent,
  LogState,
  LogStore,
  LogVisibility,
  PageLimits,
  StoredPage,
  TrimBatchLimits,
  TrimCandidate,
  TrimRange,
} from '../log-store.js';
import { SqlAppender } from './appender.js';
import { sweepIdempotencyKeys } from './idempotency.js';
import { LogGeneration, type LogHead, readHead, startNewEpoch } from './log-generation.js';
import { lastTrimmed, recordTrimmed, type TrimmedAudience } from './trimmed-audiences.js';

export interface SqlLogStoreOptions {
  readonly wallClock: () => number;
  /** Of a log that is begun now. Of one whose counter went back, with an `r` behind it. */
  readonly newEpoch: string;
  /** Told once when the tables hold another log than the one that was opened. Must not throw. */
  readonly onReplaced?: () => void;
}

interface EventRow {
  readonly seq: number;
  readonly type: string | null;
  readonly data: string;
  readonly expires_at: number | null;
}

interface StateRow extends LogHead {
  readonly trimmed_seq: number;
  readonly bytes: number;
}

interface PageRow extends Omit<EventRow, 'data'> {
  readonly bytes: number;
  /** Null when it is not small. */
  readonly data: string | null;
}

/**
 * The log in tables of a `Database`: `log_head`, `events`, `event_audiences`, and idempotency keys.
 * Once they hold another log, `state` and `append` throw `service_unavailable`, see `LogIdentity`.
 */
export class SqlLogStore implements LogStore {
  /** The embedded database belongs to one process. */
  readonly isShared: boolean;
  readonly #db: Database;
  readonly #generation: LogGeneration;
  readonly #appender: SqlAppender;

  private constructor(db: Database, wallClock: () => number, generation: LogGeneration) {
    this.isShared = db.dialect !== 'sqlite';
    this.#db = db;
    this.#generation = generation;
    this.#appender = new SqlAppender(db, wallClock, generation);
  }

  /** Begins a log under `newEpoch` in a database that has none yet. */
  static async open(
    db: Database,
    { wallClock, newEpoch, onReplaced = () => {} }: SqlLogStoreOptions,
  ): Promise<SqlLogStore> {
    const head = (await readHead(db)) ?? (await createLog(db, newEpoch));
    const generation = new LogGeneration(head, (committedSeq) => {
      void startNewEpoch(db, { ...head, seq: committedSeq }, `${newEpoch}r`).finally(onReplaced);
    });
    return new SqlLogStore(db, wallClock, generation);
  }

  async state(): Promise<LogState> {
    return toLogState(
      await this.#readHead(sql`select epoch, seq, trimmed_seq, bytes from log_head where id = 1`),
    );
  }

  async stateWithVisibility(audiences: readonly Audience[], seq: number): Promise<LogVisibility> {
    const head = await this.#readHead<StateRow & { readonly found: number }>(
      sql`select epoch, seq, trimmed_seq, bytes,
          (select count(*) from event_audiences
            where audience in (${list(audiences)}) and seq = ${seq}) as found
        from log_head where id = 1`,
    );
    return { ...toLogState(head), isVisible: head.found > 0 };
  }

  append(requests: readonly AppendRequest[]): Promise<readonly AppendOutcome[]> {
    return this.#appender.append(requests);
  }

  /**
   * One bounded index range per audience, merged: the cost is that of what the reader may see, not
   * of all there is. What is small comes along with the sizes; what is not is fetched once it is known
   * to go into the page, so that never much more is fetched than that.
   */
  async read(
    audiences: readonly Audience[],
    after: number,
    limits: PageLimits,
  ): Promise<StoredPage> {
    const rows = await this.#readRows(audiences, after, limits);
    const page = takePage(rows, limits.bytesMax);
    const more = rows.length === limits.eventsMax || page.length < rows.length;
    const large = await this.#readData(page.filter(({ data }) => data === null));
    const events = page.flatMap((row) => {
      const data = row.data ?? large.get(row.seq);
      return data === undefined ? [] : toLoggedEvent({ ...row, data }, []); // Trimmed in between.
    });
    return { events, more };
  }

  async readAll(after: number, upTo: number): Promise<LoggedEvent[]> {
    // Audiences first: what is trimmed in between is then missing as a whole, which can be seen. The
    // other way round it would be an event for nobody.
    const audienceRows = await this.#db.query<{ audience: string; seq: number }>(
      sql`select audience, seq from event_audiences
        where seq > ${after} and seq <= ${upTo} order by seq`,
    );
    const rows = await this.#db.query<EventRow>(
      sql`select seq, type, data, expires_at from events
        where seq > ${after} and seq <= ${upTo} order by seq`,
    );
    const audiencesBySeq = new Map<number, string[]>();
    for (const { audience, seq } of audienceRows) {
      const audiences = audiencesBySeq.get(seq);
      if (audiences === undefined) audiencesBySeq.set(seq, [audience]);
      else audiences.push(audience);
    }
    return rows.map((row) => toLoggedEvent(row, audiencesBySeq.get(row.seq) ?? []));
  }

  async lastVisible(audiences: readonly Audience[], upTo: number): Promise<number | undefined> {
    const [row] = await this.#db.query<{ seq: number | null }>(
      sql`select max(seq) as seq from (${union(
        audiences,
        (audience) => sql`select seq from event_audiences
          where audience = ${audience} and seq <= ${upTo} order by seq desc limit 1`,
      )}) found`,
    );
    return row?.seq ?? undefined;
  }

  lastTrimmed(audiences: readonly Audience[]): Promise<number> {
    return lastTrimmed(this.#db, audiences);
  }

  async oldestEvents(
    after: number,
    { eventsMax, recipientsMax }: TrimBatchLimits,
  ): Promise<TrimCandidate[]> {
    const [beyond] = await this.#db.query<{ seq: number }>(
      sql`select seq from event_audiences
        where seq > ${after} order by seq limit 1 offset ${recipientsMax}`,
    );
    const lastFittingSeq = Math.max((beyond?.seq ?? Number.POSITIVE_INFINITY) - 1, after + 1);
    const upTo = Math.min(lastFittingSeq, after + eventsMax); // Numbers have no gaps.
    interface Row {
      readonly seq: number;
      readonly created_at: number;
      readonly bytes: number;
    }
    const rows = await this.#db.query<Row>(
      sql`select seq, created_at, octet_length(data) as bytes from events
        where seq > ${after} and seq <= ${upTo} order by seq`,
    );
    return rows.map(({ seq, created_at, bytes }) => ({ seq, createdAt: created_at, bytes }));
  }

  trim({ after, upTo, bytes }: TrimRange): Promise<number> {
    return this.#db.transaction(async (tx) => {
      const moved = await tx.execute(
        sql`update log_head set trimmed_seq = ${upTo}, bytes = bytes - ${bytes}
          where id = 1 and trimmed_seq = ${after}`,
      );
      if (moved === 0) return 0; // Another process was faster: the bytes are not these any more.
      const trimmed = await tx.query<TrimmedAudience>(
        sql`select audience, max(seq) as seq from event_audiences
          where seq <= ${upTo} group by audience`,
      );
      await recordTrimmed(tx, trimmed);
      const deletedRecipients = await tx.execute(
        sql`delete from event_audiences where seq <= ${upTo}`,
      );
      return deletedRecipients + (await tx.execute(sql`delete from events where seq <= ${upTo}`));
    });
  }

  sweepIdempotencyKeys(now: number): Promise<number> {
    return sweepIdempotencyKeys(this.#db, now);
  }

  listen(onAppended: () => void): Subscription | undefined {
    return this.#db.notifier?.subscribe(onAppended);
  }

  async #readHead<Row extends StateRow>(statement: Sql): Promise<Row> {
    const committedSeq = this.#generation.seq;
    const [row] = await this.#db.query<Row>(statement);
    return this.#generation.verify(row, committedSeq);
  }

  /**
   * The limit stands inside and `after` once more outside, or PostgreSQL expects a page per audience
   * and would rather walk through `events` from its beginning.
   */
  #readRows(
    audiences: readonly Audience[],
    after: number,
    { eventsMax: limit, bytesMax }: PageLimits,
  ): Promise<PageRow[]> {
    const smallBytes = Math.floor((2 * bytesMax) / limit);
    const ranges = union(
      audiences,
      (audience) => sql`select seq from event_audiences
        where audience = ${audience} and seq > ${after} order by seq limit ${limit}`,
    );
    return this.#db.query<PageRow>(
      sql`select e.seq, e.type, e.expires_at, octet_length(e.data) as bytes,
          case when octet_length(e.data) <= ${smallBytes} then e.data end as data
        from (select seq from (${ranges}) found order by seq limit ${limit}) visible
        join events e on e.seq = visible.seq where e.seq > ${after} order by e.seq`,
    );
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
      sql`insert into log_head (id, epoch, seq, trimmed_seq, bytes) values (1, ${epoch}, 0, 0, 0)`,
    );
    return { epoch, seq: 0 };
  } catch (cause) {
    // Two processes may start at once on an empty database: then the other's row is ours too.
    const head = await readHead(db);
    if (head === undefined) throw cause;
    return head;
  }
}

function toLogState({ epoch, seq, trimmed_seq: trimmedSeq, bytes }: StateRow): LogState {
  return { epoch, seq, trimmedSeq, bytes };
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

/** The first ones, up to the one that goes beyond: one at least. */
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

/** What one index range for each audience has, in one statement. */
function union(audiences: readonly Audience[], range: (audience: Audience) => Sql): Sql {
  return audiences
    .map((audience, index) => sql`select seq from (${range(audience)}) ${alias(index)}`)
    .reduce((all, part) => sql`${all} union ${part}`);
}

/** Derived tables need names of their own. */
function alias(index: number): Sql {
  return { texts: [`range_${index}`], values: [] };
}
