import { type Database, inserts, list, type Sql, sql } from '../../db/database.js';
import type { Backlog, OpenStream, OpenStreamQuery } from './open-stream.js';
import type { RemoteStream } from './remote-streams.js';

interface Row {
  readonly stream_id: string;
  readonly process_id: string;
  readonly user_id: string;
  readonly session_id: string;
  readonly public_id: string;
  readonly opened_at: number;
  readonly address: string;
  readonly user_agent: string | null;
  readonly events_behind: number;
  readonly unsent_bytes: number;
}

/** Maximum number of ids in a statement. */
export const idsPerStatementMax = 500;

/** Maximum number of users whose streams are counted over all processes. */
const usersAtLimitMax = 10_000;
/** Number of streams of these users after which no more are read. */
const remoteStreamsMax = 20_000;

const columns = sql`stream_id, process_id, user_id, session_id, public_id, opened_at, address,
  user_agent, events_behind, unsent_bytes`;

const insertPrefix = sql`insert into open_streams (stream_id, process_id, user_id, session_id,
  public_id, opened_at, address, user_agent) values `;

/** Follows every character of a user id. */
const afterUserIds = '\x7f';

/** The table `open_streams`, which has a row for each open stream of every process. */
export class StreamTable {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  /** Inserts the rows of streams, without backlogs. Rejects with `UniqueViolation` if a stream already has a row. */
  async insert(streams: readonly OpenStream[]): Promise<void> {
    for (const statement of inserts(insertPrefix, streams.map(toRow)))
      await this.#db.execute(statement);
  }

  /** Deletes the rows of at most 500 streams. */
  async delete(ids: readonly string[]): Promise<void> {
    await this.#db.execute(sql`delete from open_streams where stream_id in (${list(ids)})`);
  }

  /** Stores the backlogs of at most 500 streams, by stream id. */
  async storeBacklogs(backlogs: ReadonlyMap<string, Backlog>): Promise<void> {
    const entries = [...backlogs];
    const behind = whens(entries.map(([id, { eventsBehind }]) => [id, eventsBehind]));
    const unsent = whens(entries.map(([id, { unsentBytes }]) => [id, unsentBytes]));
    // Without `else`, PostgreSQL would treat the numbers as text.
    await this.#db.execute(
      sql`update open_streams set
          events_behind = case stream_id${behind} else events_behind end,
          unsent_bytes = case stream_id${unsent} else unsent_bytes end
        where stream_id in (${list([...backlogs.keys()])})`,
    );
  }

  /** Returns the backlogs in the rows of a process, by stream id. */
  async findByProcess(processId: string): Promise<Map<string, Backlog>> {
    const rows = await this.#db.query<Row>(
      sql`select stream_id, events_behind, unsent_bytes from open_streams
        where process_id = ${processId}`,
    );
    return new Map(
      rows.map((row) => [
        row.stream_id,
        { eventsBehind: row.events_behind, unsentBytes: row.unsent_bytes },
      ]),
    );
  }

  /** Deletes all rows of a process. */
  async deleteByProcess(processId: string): Promise<void> {
    await this.#db.execute(sql`delete from open_streams where process_id = ${processId}`);
  }

  /** Deletes up to 500 rows of these processes. Returns whether there may be more. */
  async deleteBatchByProcesses(processIds: readonly string[]): Promise<boolean> {
    const rows = await this.#db.query<Row>(
      sql`select stream_id from open_streams where process_id in (${list(processIds)})
        order by stream_id limit ${idsPerStatementMax}`,
    );
    if (rows.length > 0) await this.delete(rows.map((row) => row.stream_id));
    return rows.length === idsPerStatementMax;
  }

  /** Returns a page of the streams of these processes. */
  async list(
    processIds: readonly string[],
    { user, userPrefix, after, limit }: OpenStreamQuery,
  ): Promise<readonly OpenStream[]> {
    if (processIds.length === 0) return [];
    const ofUser = user === undefined ? sql`` : sql` and user_id = ${user}`;
    const rows = await this.#db.query<Row>(
      sql`select ${columns} from open_streams
        where process_id in (${list(processIds)}) and stream_id > ${after}${ofUser}
          ${beginsWith(userPrefix)}
        order by stream_id limit ${limit}`,
    );
    return rows.map(toOpenStream);
  }

  /**
   * Returns the streams of users who have at least `limit` streams in all processes together, as far as these
   * streams are in the processes `others`. Reads at most 10,000 users, in batches of 500, and stops after the batch
   * that reaches 20,000 streams. If more users have reached the limit, their streams are missing.
   */
  async findRemoteAtLimit(
    limit: number,
    others: readonly string[],
  ): Promise<readonly RemoteStream[]> {
    // The query reads only an index, and also counts streams of dead processes. Those are omitted below.
    const users = await this.#db.query<Row>(
      sql`select user_id from open_streams group by user_id having count(*) >= ${limit}
        limit ${usersAtLimitMax}`,
    );
    const found: RemoteStream[] = [];
    while (users.length > 0 && found.length < remoteStreamsMax) {
      const batch = list(users.splice(0, idsPerStatementMax).map((row) => row.user_id));
      const rows = await this.#db.query<Row>(
        sql`select user_id, public_id from open_streams
          where user_id in (${batch}) and process_id in (${list(others)})`,
      );
      for (const row of rows) found.push({ userId: row.user_id, publicId: row.public_id });
    }
    return found;
  }
}

/** Creates ` when a then b when c then d` in linear time. */
function whens(pairs: readonly (readonly [string, number])[]): Sql {
  const texts = pairs.flatMap(() => [' when ', ' then ']);
  return { texts: [...texts, ''], values: pairs.flat(), hasVariableArity: true };
}

/** Builds a condition for user ids with a prefix. An index serves a range in every collation, unlike `like`. */
function beginsWith(userPrefix: string): Sql {
  if (userPrefix === '') return sql``;
  return sql`and user_id >= ${userPrefix} and user_id < ${userPrefix + afterUserIds}`;
}

function toRow(stream: OpenStream) {
  const { id, process, user, session, openedAt, address, userAgent } = stream;
  return [id, process, user, session, stream.stream, openedAt, address, userAgent ?? null];
}

function toOpenStream(row: Row): OpenStream {
  return {
    id: row.stream_id,
    stream: row.public_id,
    user: row.user_id,
    session: row.session_id,
    process: row.process_id,
    openedAt: row.opened_at,
    address: row.address,
    userAgent: row.user_agent ?? undefined,
    eventsBehind: row.events_behind,
    unsentBytes: row.unsent_bytes,
  };
}
