import { type Database, list, sql, tuples } from '../../db/database.js';
import { topicAudience } from '../../events/audience.js';
import type { Reader } from '../../events/topic.js';

/** Maximum number of topics whose newest trimmed event is kept. */
export const trimmedTopicsMax = 1_000_000;
/** Row with the newest number that was deleted because of `trimmedTopicsMax`. No topic has this name. */
const evictedRow = '*evicted';
/** Row with the number of topics, because counting a million rows takes too long. No topic has this name. */
const countRow = '*count';
/** Row with the number up to which trims have recorded their topics. No topic has this name. */
const recordedRow = '*recorded';
/**
 * Row with the number up to which a trim by an earlier version may have deleted events of topics. It hashes topics into
 * buckets of `trimmed_audiences`. No topic has this name.
 */
const unrecordedRow = '*unrecorded';
/** Name in a result for the number up to which the event log is trimmed. */
const headRow = '*head';
const reservedRows = [evictedRow, countRow, recordedRow, unrecordedRow];
const rowsPerStatement = 1000;

/** The newest event of one topic among the events that are being trimmed. */
export interface TrimmedTopic {
  readonly topic: string;
  readonly seq: number;
}

/** The trimmed topics of one trim, which deletes the entries above `after` up to `upTo`. */
export interface TopicTrim {
  readonly after: number;
  readonly upTo: number;
  readonly topics: readonly TrimmedTopic[];
}

interface Row {
  readonly topic: string;
  readonly seq: number;
}

/**
 * Records the newest trimmed event of each topic. If more topics than `topicsMax` are kept, deletes those whose
 * events are the oldest. Call it in the transaction that trims; every `seq` must be newer than those recorded
 * before, and of two such transactions at the same time one must be rolled back. If an earlier version has trimmed in
 * between, any topic may have lost events there.
 */
export async function recordTrimmedTopics(
  tx: Database,
  { after, upTo, topics }: TopicTrim,
  topicsMax = trimmedTopicsMax,
): Promise<void> {
  const reserved = await readReserved(tx);
  if (topics.length > 0) await recordTopics(tx, topics, reserved, topicsMax);
  if ((reserved.get(recordedRow) ?? 0) < after) await writeReserved(tx, unrecordedRow, after);
  await writeReserved(tx, recordedRow, upTo);
}

async function recordTopics(
  tx: Database,
  trimmed: readonly TrimmedTopic[],
  reserved: ReadonlyMap<string, number>,
  topicsMax: number,
): Promise<void> {
  let count = reserved.get(countRow) ?? 0;
  for (let start = 0; start < trimmed.length; start += rowsPerStatement) {
    const batch = trimmed.slice(start, start + rowsPerStatement);
    const replacedCount = await deleteTopics(tx, batch);
    const rows = batch.map(({ topic, seq }) => [topic, seq]);
    await tx.execute(sql`insert into trimmed_topics (topic, seq) values ${tuples(rows)}`);
    count += batch.length - replacedCount;
  }
  if (count > topicsMax) {
    const lastEvicted = reserved.get(evictedRow) ?? 0;
    count -= await evictOldest(tx, count - topicsMax, lastEvicted);
  }
  await writeReserved(tx, countRow, count);
}

/**
 * Returns the number of the newest trimmed event above `after` that a reader with these topics would have
 * received, or a higher number if a topic may have been evicted or trimmed by an earlier version; 0 if there is none.
 */
export async function findLastTrimmedSeqOfTopics(
  db: Database,
  topics: Reader['topics'],
  after: number,
): Promise<number> {
  if (topics.size === 0) return 0;
  const names = [...topics.keys()].map((audience) => audience.slice(topicAudience('').length));
  const wanted = list([evictedRow, recordedRow, unrecordedRow, ...names]);
  const rows = await db.query<Row>(
    sql`select topic, seq from trimmed_topics where topic in (${wanted}) and seq > ${after}
      union all select ${headRow}, trimmed_seq from log_head where id = 1 and trimmed_seq > ${after}`,
  );
  const recorded = rows.find(({ topic }) => topic === recordedRow)?.seq ?? 0;
  let last = 0;
  for (const { topic, seq } of rows) {
    if (topic === recordedRow || (topic === headRow && seq <= recorded)) continue;
    // What is not recorded may be of any of the topics.
    const since = topic.startsWith('*')
      ? Math.min(...topics.values())
      : topics.get(topicAudience(topic));
    if (seq > (since ?? 0)) last = Math.max(last, seq);
  }
  return last;
}

/** Deletes the topics whose newest trimmed events are the oldest, and returns how many. */
async function evictOldest(tx: Database, count: number, lastEvicted: number): Promise<number> {
  // The lower bound skips deleted rows, which a database keeps in the index for some time.
  const oldest = await tx.query<Row>(
    sql`select topic, seq from trimmed_topics where seq >= ${lastEvicted}
      order by seq limit ${count + reservedRows.length}`,
  );
  const evicted = oldest.filter(({ topic }) => !reservedRows.includes(topic)).slice(0, count);
  for (let start = 0; start < evicted.length; start += rowsPerStatement)
    await deleteTopics(tx, evicted.slice(start, start + rowsPerStatement));
  await writeReserved(tx, evictedRow, evicted.at(-1)?.seq ?? lastEvicted);
  return evicted.length;
}

function deleteTopics(tx: Database, rows: readonly Row[]): Promise<number> {
  const names = list(rows.map(({ topic }) => topic));
  return tx.execute(sql`delete from trimmed_topics where topic in (${names})`);
}

async function readReserved(tx: Database): Promise<ReadonlyMap<string, number>> {
  const rows = await tx.query<Row>(
    sql`select topic, seq from trimmed_topics where topic in (${list(reservedRows)})`,
  );
  return new Map(rows.map(({ topic, seq }) => [topic, seq]));
}

async function writeReserved(tx: Database, name: string, value: number): Promise<void> {
  const count = await tx.execute(
    sql`update trimmed_topics set seq = ${value} where topic = ${name}`,
  );
  if (count > 0) return;
  await tx.execute(sql`insert into trimmed_topics (topic, seq) values (${name}, ${value})`);
}
