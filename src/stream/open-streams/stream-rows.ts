import type { EventStream } from '../event-stream.js';
import { type Backlog, toBacklog, toOpenStream } from './open-stream.js';
import { idsPerStatementMax, type StreamTable } from './stream-table.js';

/** Maximum number of rows that one `sync` inserts, and maximum number that it deletes. */
const rowsPerSyncMax = 5000;

const noBacklog: Backlog = { eventsBehind: 0, unsentBytes: 0 };

/**
 * Keeps the rows of this process in `open_streams` equal to its open streams. Streams do not report that they
 * open or end: each `sync` compares the rows with the streams. A statement that failed may have been committed,
 * so after a failure the next `sync` first reads which rows exist.
 */
export class StreamRows {
  readonly #table: StreamTable;
  readonly #streams: () => ReadonlySet<EventStream>;
  #processId: string;
  /** Ids under which rows were written before other processes took this process for dead. */
  readonly #formerProcessIds: string[] = [];
  /** The process id of the rows below. Undefined if it is unknown which rows exist. */
  #knownFor: string | undefined;
  /** The streams with a row, some of which have ended, and the backlog in their rows. */
  #written = new Map<EventStream, Backlog>();
  /** Ids of further rows, whose streams have ended. */
  #leftoverIds: string[] = [];
  /** The streams whose backlog is stored next if it still differs from their rows, the longest waiting first. */
  readonly #changed = new Set<EventStream>();

  constructor(table: StreamTable, streams: () => ReadonlySet<EventStream>, processId: string) {
    this.#table = table;
    this.#streams = streams;
    this.#processId = processId;
    this.#knownFor = processId;
  }

  /** Makes the next `sync` write all rows again under another process id: other processes may delete the old rows. */
  changeProcessId(processId: string): void {
    this.#formerProcessIds.push(this.#processId);
    this.#processId = processId;
  }

  /**
   * Inserts rows of streams that have opened and deletes rows of streams that have ended, at most 5000 each, and
   * stores the backlog of at most 500 streams. A backlog is stored only if it differed from the row at the
   * previous call, too, because any stream has unsent bytes for a moment. An empty backlog is stored immediately.
   * Rejects if the database fails; the next call continues. Calls must not overlap.
   */
  async sync(): Promise<void> {
    const processId = this.#processId;
    if (this.#knownFor !== processId) await this.#reload(processId);
    this.#knownFor = undefined; // Until all statements have succeeded.
    await this.#insert(processId);
    await this.#delete();
    await this.#storeBacklogs();
    this.#knownFor = processId;
  }

  /** Deletes all rows of this process. Rejects if the database fails. */
  async deleteAll(): Promise<void> {
    for (const id of [...this.#formerProcessIds, this.#processId])
      await this.#table.deleteByProcess(id);
  }

  async #reload(processId: string): Promise<void> {
    for (const id of this.#formerProcessIds) await this.#table.deleteByProcess(id);
    const rows = await this.#table.findByProcess(processId);
    this.#written = new Map();
    this.#changed.clear();
    for (const stream of this.#streams()) {
      const backlog = rows.get(stream.id);
      if (backlog !== undefined) this.#written.set(stream, backlog);
      rows.delete(stream.id);
    }
    this.#leftoverIds = [...rows.keys()];
  }

  async #insert(processId: string): Promise<void> {
    const opened: EventStream[] = [];
    for (const stream of this.#streams()) {
      if (opened.length === rowsPerSyncMax) break;
      if (!this.#written.has(stream)) opened.push(stream);
    }
    for (const batch of split(opened)) {
      await this.#table.insert(batch.map((stream) => toOpenStream(stream, processId)));
      for (const stream of batch) this.#written.set(stream, noBacklog);
    }
  }

  async #delete(): Promise<void> {
    const ids = this.#leftoverIds.splice(0, rowsPerSyncMax);
    for (const stream of this.#written.keys()) {
      if (ids.length === rowsPerSyncMax) break;
      if (stream.isOpen) continue;
      ids.push(stream.id);
      this.#written.delete(stream);
      this.#changed.delete(stream);
    }
    for (const batch of split(ids)) await this.#table.delete(batch);
  }

  async #storeBacklogs(): Promise<void> {
    const newlyChanged: EventStream[] = [];
    for (const [stream, backlog] of this.#written) {
      if (!stream.isOpen || isSame(stream, backlog)) this.#changed.delete(stream);
      else if (isSame(stream, noBacklog)) this.#changed.add(stream);
      else if (!this.#changed.has(stream)) newlyChanged.push(stream);
    }
    const backlogById = new Map<string, Backlog>();
    for (const stream of this.#changed) {
      if (backlogById.size === idsPerStatementMax) break;
      const backlog = toBacklog(stream);
      backlogById.set(stream.id, backlog);
      this.#written.set(stream, backlog);
      this.#changed.delete(stream);
    }
    for (const stream of newlyChanged) this.#changed.add(stream);
    if (backlogById.size > 0) await this.#table.storeBacklogs(backlogById);
  }
}

function isSame(a: Backlog, b: Backlog | undefined): boolean {
  return a.eventsBehind === b?.eventsBehind && a.unsentBytes === b.unsentBytes;
}

/** Splits a list into parts for one statement each. */
function split<Item>(items: readonly Item[]): Item[][] {
  const parts: Item[][] = [];
  for (let start = 0; start < items.length; start += idsPerStatementMax)
    parts.push(items.slice(start, start + idsPerStatementMax));
  return parts;
}
