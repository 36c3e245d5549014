import { type Database, type Listening, list, type Sql, sql } from '../../db/database.js';
import type { Audience } from '../../events/audience.js';
import type {
  AppendOutcome,
  AppendRequest,
  BatchLimits,
  LoggedEvent,
  LogState,
  LogStore,
  OldEvent,
  PageLimits,
  StateFor,
  StoredPage,
  Trimming,
} from '../log-store.js';
import { TableAppender } from './appender.js';
import { sweepIdempotencyKeys } from './idempotency.js';
import { forsake, headOf, type LogHead, LogIdentity } from './log-generation.js';
import { lastTrimmed, noteTrimmed, type Trimmed } from './trimmed-audiences.js';

export interface TableLogOptions {
  readonly clock: () => number;
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
export class TableLog implements LogStore {
  /** The embedded database belongs to one process. */
  readonly isShared: boolean;
  readonly #db: Database;
  readonly #identity: LogIdentity;
  readonly #appender: TableAppender;

  private constructor(db: Database, clock: () => number, identity: LogIdentity) {
    this.isShared = db.dialect !== 'sqlite';
    this.#db = db;
    this.#identity = identity;
    this.#appender = new TableAppender(db, clock, identity);
  }

  /** Begins a log under `newEpoch` in a database that has none yet. */
  static async open(
    db: Database,
    { clock, newEpoch, onReplaced = () => {} }: TableLogOptions,
  ): Promise<TableLog> {
    const head = (await headOf(db)) ?? (await begin(db, newEpoch));
    const identity = new LogIdentity(head, (atLeast) => {
      void forsake(db, { ...head, seq: atLeast }, `${newEpoch}r`).finally(onReplaced);
    });
    return new TableLog(db, clock, identity);
  }

  async state(): Promise<LogState> {
    return stateOf(
      await this.#head(sql`select epoch, seq, trimmed_seq, bytes from log_head where id = 1`),
    );
  }

  async stateFor(audiences: readonly Audience[], seq: number): Promise<StateFor> {
    const head = await this.#head<StateRow & { readonly found: number }>(
      sql`select epoch, seq, trimmed_seq, bytes,
          (select count(*) from event_audiences
            where audience in (${list(audiences)}) and seq = ${seq}) as found
        from log_head where id = 1`,
    );
    return { ...stateOf(head), isVisible: head.found > 0 };
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
    const rows = await this.#rows(audiences, after, limits);
    const fitting = fittingIn(rows, limits.bytesMax);
    const more = rows.length === limits.eventsMax || fitting.length < rows.length;
    const large = await this.#dataOf(fitting.filter(({ data }) => data === null));
    const events = fitting.flatMap((row) => {
      const data = row.data ?? large.get(row.seq);
      return data === undefined ? [] : loggedEvent({ ...row, data }, []); // Trimmed in between.
    });
    return { events, more };
  }

  async readAll(after: number, upTo: number): Promise<LoggedEvent[]> {
    // Audiences first: what is trimmed in between is then missing as a whole, which can be seen. The
    // other way round it would be an event for nobody.
    const addressed = await this.#db.query<{ audience: string; seq: number }>(
      sql`select audience, seq from event_audiences
        where seq > ${after} and seq <= ${upTo} order by seq`,
    );
    const rows = await this.#db.query<EventRow>(
      sql`select seq, type, data, expires_at from events
        where seq > ${after} and seq <= ${upTo} order by seq`,
    );
    const audiencesOf = new Map<number, string[]>();
    for (const { audience, seq } of addressed) {
      const audiences = audiencesOf.get(seq);
      if (audiences === undefined) audiencesOf.set(seq, [audience]);
      else audiences.push(audience);
    }
    return rows.map((row) => loggedEvent(row, audiencesOf.get(row.seq) ?? []));
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

  async oldest(after: number, { eventsMax, addressesMax }: BatchLimits): Promise<OldEvent[]> {
    const [beyond] = await this.#db.query<{ seq: number }>(
      sql`select seq from event_audiences
        where seq > ${after} order by seq limit 1 offset ${addressesMax}`,
    );
    const fitting = Math.max((beyond?.seq ?? Number.POSITIVE_INFINITY) - 1, after + 1);
    const upTo = Math.min(fitting, after + eventsMax); // Numbers have no gaps.
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

  trim({ after, upTo, bytes }: Trimming): Promise<number> {
    return this.#db.transaction(async (tx) => {
      const moved = await tx.execute(
        sql`update log_head set trimmed_seq = ${upTo}, bytes = bytes - ${bytes}
          where id = 1 and trimmed_seq = ${after}`,
      );
      if (moved === 0) return 0; // Another process was faster: the bytes are not these any more.
      const trimmed = await tx.query<Trimmed>(
        sql`select audience, max(seq) as seq from event_audiences
          where seq <= ${upTo} group by audience`,
      );
      await noteTrimmed(tx, trimmed);
      const addresses = await tx.execute(sql`delete from event_audiences where seq <= ${upTo}`);
      return addresses + (await tx.execute(sql`delete from events where seq <= ${upTo}`));
    });
  }

  sweepIdempotencyKeys(now: number): Promise<number> {
    return sweepIdempotencyKeys(this.#db, now);
  }

  listen(onAppended: () => void): Listening | undefined {
    return this.#db.wakeUps?.listen(onAppended);
  }

  async #head<Row extends StateRow>(statement: Sql): Promise<Row> {
    const atLeast = this.#identity.seq;
    const [row] = await this.#db.query<Row>(statement);
    return this.#identity.check(row, atLeast);
  }

  /**
   * The limit stands inside and `after` once more outside, or PostgreSQL expects a page per audience
   * and would rather walk through `events` from its beginning.
   */
  #rows(
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

  async #dataOf(rows: readonly PageRow[]): Promise<ReadonlyMap<number, string>> {
    if (rows.length === 0) return new Map();
    const found = await this.#db.query<{ seq: number; data: string }>(
      sql`select seq, data from events where seq in (${list(rows.map(({ seq }) => seq))})`,
    );
    return new Map(found.map(({ seq, data }) => [seq, data]));
  }
}

async function begin(db: Database, epoch: string): Promise<LogHead> {
  try {
    await db.execute(
      sql`insert into log_head (id, epoch, seq, trimmed_seq, bytes) values (1, ${epoch}, 0, 0, 0)`,
    );
    return { epoch, seq: 0 };
  } catch (cause) {
    // Two processes may start at once on an empty database: then the other's row is ours too.
    const head = await headOf(db);
    if (head === undefined) throw cause;
    return head;
  }
}

function stateOf({ epoch, seq, trimmed_seq: trimmedSeq, bytes }: StateRow): LogState {
  return { epoch, seq, trimmedSeq, bytes };
}

function loggedEvent(row: EventRow, audiences: readonly Audience[]): LoggedEvent {
  return {
    seq: row.seq,
    audiences,
    type: row.type ?? undefined,
    data: row.data,
    expiresAt: row.expires_at ?? undefined,
  };
}

/** The first ones, up to the one that goes beyond: one at least. */
function fittingIn(rows: readonly PageRow[], bytesMax: number): PageRow[] {
  const fitting: PageRow[] = [];
  let bytesBefore = 0;
  for (const row of rows) {
    if (bytesBefore >= bytesMax) break;
    fitting.push(row);
    bytesBefore += row.bytes;
  }
  return fitting;
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
