import { type Database, list, type Sql, sql } from '../../db/database.js';
import type { Audience } from '../../events/audience.js';
import type { Reader, TopicsBySeq } from '../../events/topic.js';
import type { LoggedEvent, PageLimits, SeqRange, StoredPage } from '../log-store.js';
import type { LogGeneration } from './log-generation.js';
import { alias, findVisibleEvents } from './visible-events.js';

export interface EventRow {
  readonly seq: number;
  readonly type: string | null;
  readonly topic: string | null;
  readonly data: string;
  readonly expires_at: number | null;
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

interface FoundRows {
  readonly rows: readonly PageRow[];
  /** Every visible event up to this number is in `rows`. */
  readonly endSeq: number;
  readonly trimmedSeq: number;
  readonly topicsBySeq: TopicsBySeq | undefined;
}

/** Reads pages of the event log for readers. */
export class PageReader {
  readonly #db: Database;
  readonly #generation: LogGeneration;

  constructor(db: Database, generation: LogGeneration) {
    this.#db = db;
    this.#generation = generation;
  }

  /**
   * See `LogStore.read`. Small data is read together with the sizes. Large data is read only for the events of the
   * page, so that little more than the page is transferred.
   */
  async read(reader: Reader, range: SeqRange, limits: PageLimits): Promise<StoredPage> {
    const found =
      reader.topics.size === 0
        ? await this.#findRows(reader.audiences, range, limits)
        : await this.#findRowsOfTopics(reader, range, limits);
    const { rows, trimmedSeq, topicsBySeq } = found;
    const page = takePage(rows, limits.bytesMax);
    const endSeq = page.length < rows.length ? (page.at(-1)?.seq ?? found.endSeq) : found.endSeq;
    const largeData = await this.#readData(page.filter(({ data }) => data === null));
    const trimmedMeanwhile = page.findLast(({ seq, data }) => data === null && !largeData.has(seq));
    const events = page.flatMap((row) => {
      const data = row.data ?? largeData.get(row.seq);
      return data === undefined ? [] : toLoggedEvent({ ...row, data }, []);
    });
    return {
      ...{ events, endSeq, hasMore: endSeq < range.upTo, topicsBySeq },
      trimmedSeq: Math.max(trimmedSeq, trimmedMeanwhile?.seq ?? 0),
    };
  }

  /**
   * Reads the rows of a page for fixed audiences, and in the same snapshot the number up to which the event log is trimmed.
   * Merges one limited index range per audience, so the cost depends on the number of events for the reader, not
   * on the number of all events. The inner query has the limit, and the outer query repeats the range, because
   * otherwise PostgreSQL plans for a full page per audience and scans `events` from its beginning.
   */
  async #findRows(
    audiences: readonly Audience[],
    { after, upTo }: SeqRange,
    limits: PageLimits,
  ): Promise<FoundRows> {
    const { eventsMax: limit } = limits;
    const ranges = union(
      audiences,
      (audience) => sql`select seq from event_audiences
        where audience = ${audience} and seq > ${after} and seq <= ${upTo}
        order by seq limit ${limit}`,
    );
    const { known } = this.#generation;
    const found = await this.#db.query<HeadRow & (PageRow | { readonly seq: null })>(
      sql`select log_head.epoch, log_head.seq as head_seq, log_head.trimmed_seq, page.*
        from log_head left join (
          select ${pageColumns(limits)}
          from (select seq from (${ranges}) found order by seq limit ${limit}) visible
          join events e on e.seq = visible.seq
          where e.seq > ${after} and e.seq <= ${upTo}
        ) page on 1 = 1
        where log_head.id = 1 order by page.seq`,
    );
    const [head] = found;
    this.#generation.observe(head && { epoch: head.epoch, seq: head.head_seq }, known);
    const rows = found.flatMap((row) => (row.seq === null ? [] : row));
    const endSeq = rows.length === limit ? (rows.at(-1)?.seq ?? upTo) : upTo;
    return { rows, endSeq, trimmedSeq: head?.trimmed_seq ?? 0, topicsBySeq: undefined };
  }

  /** Does the same as `#findRows` for a reader with topics. */
  async #findRowsOfTopics(reader: Reader, range: SeqRange, limits: PageLimits): Promise<FoundRows> {
    const { known } = this.#generation;
    const visible = await findVisibleEvents(this.#db, reader, range, limits.eventsMax);
    const { seqs, endSeq, topicsBySeq } = visible;
    const { trimmedSeq } = this.#generation.observe(visible.head, known);
    if (seqs.length === 0) return { rows: [], endSeq, trimmedSeq, topicsBySeq };
    const rows = await this.#db.query<PageRow>(
      sql`select ${pageColumns(limits)} from events e where e.seq in (${list(seqs)}) order by e.seq`,
    );
    const found = new Set(rows.map(({ seq }) => seq));
    const trimmedMeanwhile = seqs.findLast((seq) => !found.has(seq)) ?? 0;
    return { rows, endSeq, trimmedSeq: Math.max(trimmedSeq, trimmedMeanwhile), topicsBySeq };
  }

  async #readData(rows: readonly PageRow[]): Promise<ReadonlyMap<number, string>> {
    if (rows.length === 0) return new Map();
    const found = await this.#db.query<{ seq: number; data: string }>(
      sql`select seq, data from events where seq in (${list(rows.map(({ seq }) => seq))})`,
    );
    return new Map(found.map(({ seq, data }) => [seq, data]));
  }
}

/** Selects the columns of `PageRow` of the event `e`. */
function pageColumns({ bytesMax, eventsMax }: PageLimits): Sql {
  // Twice the average size of an event in a page that reaches both limits.
  const smallBytesMax = Math.floor((2 * bytesMax) / eventsMax);
  return sql`e.seq, e.type, e.topic, e.expires_at, octet_length(e.data) as bytes,
    case when octet_length(e.data) <= ${smallBytesMax} then e.data end as data`;
}

/** Converts a row, whose audiences are read separately. */
export function toLoggedEvent(row: EventRow, audiences: readonly Audience[]): LoggedEvent {
  return {
    seq: row.seq,
    audiences,
    type: row.type ?? undefined,
    ...(row.topic === null ? {} : { topic: row.topic }),
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
