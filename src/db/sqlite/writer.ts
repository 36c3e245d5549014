import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { endsTransaction } from './errors.js';
import { getWalBytes, isWalReadOnly, openWriter, StatementCache } from './file.js';
import { loadSqlite, type SqliteConnection } from './load.js';
import {
  type BatchStatement,
  type CommandResult,
  type SqliteErrorParts,
  type ThreadReply,
  toErrorParts,
  type WriterCommand,
} from './messages.js';

type ExecuteCommand = Extract<WriterCommand, { kind: 'execute' }>;
type BatchCommand = Extract<WriterCommand, { kind: 'batch' }>;
type TransactionCommand = Extract<WriterCommand, { transactionId: number }>;

const groupSizeMax = 256;
/** Primary result codes. */
const codes = { readOnly: 8, ioError: 10 };

/**
 * Owns the only writing connection, in a separate thread (this file is its entry).
 *
 * Statements that arrive together share one commit, so a durable write is cheap: the disk is synced
 * once for all of them, and one message holds their results. There is no timer: a group contains
 * the writes that arrived during the previous commit. Each statement fails or succeeds on its own,
 * because a failed statement leaves no trace. Only an error such as a full disk fails the whole group.
 */
class Writer {
  readonly #port: MessagePort;
  readonly #path: string;
  readonly #connection: SqliteConnection;
  readonly #statements: StatementCache;
  readonly #queue: WriterCommand[] = []; // In order of arrival, without `#transactionCommands`.
  /** Commands by transaction id, including transactions that have not begun yet. */
  readonly #transactionCommands = new Map<number, TransactionCommand[]>();
  /**
   * The transaction that has the writer to itself. `error` is set when it could not begin or has
   * failed.
   */
  #openTransaction:
    | { readonly id: number; readonly error: SqliteErrorParts | undefined }
    | undefined;
  #isClosed = false;

  constructor(port: MessagePort, path: string, connection: SqliteConnection) {
    this.#port = port;
    this.#path = path;
    this.#connection = connection;
    this.#statements = new StatementCache(connection);
    port.on('message', (commands: readonly WriterCommand[]) => {
      this.#enqueue(commands);
      this.#processCommands();
    });
  }

  #enqueue(commands: readonly WriterCommand[]): void {
    for (const command of commands) {
      if (!('transactionId' in command)) {
        this.#queue.push(command);
        continue;
      }
      const earlierCommands = this.#transactionCommands.get(command.transactionId);
      if (earlierCommands === undefined)
        this.#transactionCommands.set(command.transactionId, [command]);
      else earlierCommands.push(command);
    }
  }

  /** Processes commands until none can proceed. */
  #processCommands(): void {
    while (!this.#isClosed) {
      this.#enqueueArrived();
      const reply =
        this.#openTransaction === undefined
          ? this.#processNext()
          : this.#continueTransaction(this.#openTransaction.id);
      if (reply === undefined) return;
      const isCommitted = reply.commits > 0;
      this.#port.postMessage(isCommitted ? { ...reply, walBytes: getWalBytes(this.#path) } : reply);
    }
    this.#port.close();
  }

  /** Enqueues commands that arrived during the last commit, so that they join the next group. */
  #enqueueArrived(): void {
    while (this.#queue.length < groupSizeMax) {
      const arrived = receiveMessageOnPort(this.#port);
      if (arrived === undefined) return;
      this.#enqueue(arrived.message as readonly WriterCommand[]);
    }
  }

  #processNext(): ThreadReply | undefined {
    const [first] = this.#queue;
    if (first?.kind === 'execute') return this.#commitGroup(this.#takeGroup());
    if (first === undefined) return undefined;
    this.#queue.shift();
    if (first.kind === 'batch') return this.#runBatch(first);
    if (first.kind === 'begin') return this.#begin(first.id);
    this.#isClosed = true;
    return toReply([this.#attempt(first.id, () => this.#close())]);
  }

  /**
   * Begins a transaction and processes its commands that have already arrived. Returns one reply for all of
   * them.
   */
  #begin(id: number): ThreadReply {
    const begin = this.#attempt(id, () => this.#exec('begin immediate'));
    this.#openTransaction = { id, error: begin.error };
    const reply = this.#continueTransaction(id);
    return reply === undefined
      ? toReply([begin])
      : { ...reply, results: [begin, ...reply.results] };
  }

  #takeGroup(): ExecuteCommand[] {
    const end = this.#queue.findIndex(({ kind }) => kind !== 'execute');
    const count = Math.min(end === -1 ? this.#queue.length : end, groupSizeMax);
    return this.#queue.splice(0, count) as ExecuteCommand[]; // Safe: ends before any other kind.
  }

  #commitGroup(group: readonly ExecuteCommand[]): ThreadReply {
    const results: CommandResult[] = [];
    try {
      this.#statements.prepare('begin immediate').run();
      for (const { id, text, values } of group) {
        const result = this.#attempt(id, () => this.#run(text, values));
        if (result.error !== undefined && endsTransaction(result.error)) throw result.error;
        results.push(result);
      }
      this.#statements.prepare('commit').run();
      return { results, commits: 1 };
    } catch (cause) {
      this.#rollback();
      const error =
        cause instanceof Error ? this.#toParts(cause) : (cause as CommandResult['error'] & object);
      return toReply(group.map(({ id }) => ({ id, error })));
    }
  }

  #runBatch({ id, statements }: BatchCommand): ThreadReply {
    try {
      this.#statements.prepare('begin immediate').run();
      const value = this.#runStatements(statements);
      if (value === 0) {
        this.#rollback();
        return toReply([{ id, value }]);
      }
      this.#statements.prepare('commit').run();
      return { results: [{ id, value }], commits: 1 };
    } catch (error) {
      this.#rollback();
      return toReply([{ id, error: this.#toParts(error) }]);
    }
  }

  /** Returns the number of matched rows. Stops at a statement that matches no row, and returns 0. */
  #runStatements(statements: readonly BatchStatement[]): number {
    let matched = 0;
    for (const { text, values } of statements) {
      const changes = this.#run(text, values);
      if (changes === 0) return 0;
      matched += changes;
    }
    return matched;
  }

  /** Processes the commands that have arrived for the open transaction, up to its end. */
  #continueTransaction(id: number): ThreadReply | undefined {
    const results: CommandResult[] = [];
    const commands = this.#transactionCommands.get(id);
    let commits = 0;
    while (this.#openTransaction !== undefined) {
      const command = commands?.shift();
      if (command === undefined) break;
      const result = this.#attempt(command.id, () => this.#handleCommand(command));
      if (command.kind === 'commit' && result.error === undefined) commits = 1;
      if (command.kind !== 'rollback' && result.error !== undefined)
        this.#abortTransaction(command, result.error);
      results.push(result);
    }
    if (this.#openTransaction === undefined) this.#transactionCommands.delete(id);
    return results.length === 0 ? undefined : { results, commits };
  }

  #handleCommand(command: TransactionCommand): number | object[] | undefined {
    if (command.kind === 'rollback') return this.#rollback();
    const error = this.#openTransaction?.error;
    if (error !== undefined) throw Object.assign(new Error(error.message), error);
    if (command.kind === 'transactionStatement') {
      if (!command.isQuery) return this.#run(command.text, command.values);
      return this.#statements.prepare(command.text).all(...command.values) as object[];
    }
    this.#exec('commit');
    this.#openTransaction = undefined;
    return undefined;
  }

  /**
   * Rolls back and rejects all later commands of the transaction, because the engine may already
   * have rolled back (disk full), and later commands would then commit on their own.
   */
  #abortTransaction(command: TransactionCommand, error: SqliteErrorParts): void {
    const id = command.transactionId;
    this.#rollback();
    // Later commands are rejected until `commit` or `rollback`.
    if (command.kind === 'transactionStatement') this.#openTransaction = { id, error };
  }

  #run(text: string, values: readonly unknown[]): number {
    return Number(this.#statements.prepare(text).run(...values).changes);
  }

  #exec(text: string): undefined {
    this.#connection.exec(text);
  }

  #rollback(): undefined {
    const hasBegun = this.#openTransaction?.error === undefined;
    this.#openTransaction = undefined;
    try {
      if (hasBegun) this.#connection.exec('rollback');
    } catch {
      // The engine has already rolled back, for example after a full disk.
    }
  }

  #close(): undefined {
    // Makes the file complete without its write-ahead log, so that it can be copied.
    this.#connection.exec('pragma wal_checkpoint(truncate)');
    this.#connection.close();
  }

  #attempt(id: number, work: () => number | object[] | undefined): CommandResult {
    try {
      const value = work();
      return value === undefined ? { id } : { id, value };
    } catch (error) {
      return { id, error: this.#toParts(error) };
    }
  }

  /**
   * Distinguishes a file system that became read-only from other I/O errors. SQLite does not distinguish
   * them.
   */
  #toParts(error: unknown): SqliteErrorParts {
    const parts = toErrorParts(error);
    const isIoError = ((parts.errcode ?? 0) & 0xff) === codes.ioError;
    return isIoError && isWalReadOnly(this.#path) ? { ...parts, errcode: codes.readOnly } : parts;
  }
}

function toReply(results: readonly CommandResult[]): ThreadReply {
  return { results, commits: 0 };
}

const { path, port } = workerData as { path: string; port: MessagePort };
try {
  const connection = openWriter(await loadSqlite(), path);
  new Writer(port, path, connection);
  port.postMessage(toReply([]));
} catch (error) {
  port.postMessage({ ...toReply([]), startError: toErrorParts(error) });
  port.close();
}
