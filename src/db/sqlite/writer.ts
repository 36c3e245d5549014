import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { endsTransaction } from './errors.js';
import { openWriter, StatementCache } from './file.js';
import { loadSqlite, type SqliteConnection } from './load.js';
import {
  type BatchStatement,
  type CommandResult,
  type SqliteErrorParts,
  toErrorParts,
  type WriterCommand,
  type WriterReply,
} from './messages.js';

type ExecuteCommand = Extract<WriterCommand, { kind: 'execute' }>;
type BatchCommand = Extract<WriterCommand, { kind: 'batch' }>;
type TransactionCommand = Extract<WriterCommand, { transaction: number }>;

const groupMax = 256;

/**
 * The only connection that writes, in a thread of its own (this file is its entry).
 *
 * Statements that arrive together share one commit, which is what makes a durable write cheap:
 * the disk is asked once for all of them, and they are answered in one message. There is no timer:
 * a group is what came while the group before it was under way. Each fails or succeeds for itself,
 * for a single statement leaves no trace when it fails.
 */
class Writer {
  readonly #port: MessagePort;
  readonly #connection: SqliteConnection;
  readonly #statements: StatementCache;
  readonly #queue: WriterCommand[] = []; // In order of arrival: all but `#inside`.
  /** Orders of transactions, by their names: also of those that have not begun yet. */
  readonly #transactionCommands = new Map<number, TransactionCommand[]>();
  /** The transaction that has the writer to itself; `error` when it could not begin. */
  #openTransaction:
    | { readonly id: number; readonly error: SqliteErrorParts | undefined }
    | undefined;
  #isClosed = false;

  constructor(port: MessagePort, connection: SqliteConnection) {
    this.#port = port;
    this.#connection = connection;
    this.#statements = new StatementCache(connection);
    port.on('message', (commands: readonly WriterCommand[]) => {
      this.#enqueue(commands);
      this.#processCommands();
    });
  }

  #enqueue(commands: readonly WriterCommand[]): void {
    for (const command of commands) {
      if (!('transaction' in command)) {
        this.#queue.push(command);
        continue;
      }
      const commands = this.#transactionCommands.get(command.transaction);
      if (commands === undefined) this.#transactionCommands.set(command.transaction, [command]);
      else commands.push(command);
    }
  }

  /** Goes on until nothing is left that can be done now. */
  #processCommands(): void {
    while (!this.#isClosed) {
      this.#enqueueArrived();
      const reply =
        this.#openTransaction === undefined
          ? this.#processNext()
          : this.#continueTransaction(this.#openTransaction.id);
      if (reply === undefined) return;
      this.#port.postMessage(reply);
    }
    this.#port.close();
  }

  /** Whoever arrived meanwhile joins the next group. */
  #enqueueArrived(): void {
    while (this.#queue.length < groupMax) {
      const arrived = receiveMessageOnPort(this.#port);
      if (arrived === undefined) return;
      this.#enqueue(arrived.message as readonly WriterCommand[]);
    }
  }

  #processNext(): WriterReply | undefined {
    const [first] = this.#queue;
    if (first?.kind === 'execute') return this.#commitGroup(this.#takeGroup());
    if (first === undefined) return undefined;
    this.#queue.shift();
    if (first.kind === 'batch') return this.#runBatch(first);
    if (first.kind === 'begin') return this.#begin(first.id);
    this.#isClosed = true;
    return toReply([this.#attempt(first.id, () => this.#close())]);
  }

  /** What was sent along is done in the same breath. */
  #begin(id: number): WriterReply {
    const begin = this.#attempt(id, () => this.#exec('begin immediate'));
    this.#openTransaction = { id, error: begin.error };
    const rest = this.#continueTransaction(id);
    return rest === undefined ? toReply([begin]) : { ...rest, results: [begin, ...rest.results] };
  }

  #takeGroup(): ExecuteCommand[] {
    const end = this.#queue.findIndex(({ kind }) => kind !== 'execute');
    const count = Math.min(end === -1 ? this.#queue.length : end, groupMax);
    return this.#queue.splice(0, count) as ExecuteCommand[]; // Safe: cut before the first other one.
  }

  #commitGroup(group: readonly ExecuteCommand[]): WriterReply {
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
        cause instanceof Error ? toErrorParts(cause) : (cause as CommandResult['error'] & object);
      return toReply(group.map(({ id }) => ({ id, error })));
    }
  }

  #runBatch({ id, statements }: BatchCommand): WriterReply {
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
      return toReply([{ id, error: toErrorParts(error) }]);
    }
  }

  /** How many rows matched; 0 as soon as something matched none. */
  #runStatements(statements: readonly BatchStatement[]): number {
    let matched = 0;
    for (const { text, values } of statements) {
      const changes = this.#run(text, values);
      if (changes === 0) return 0;
      matched += changes;
    }
    return matched;
  }

  /** All that has come for the open transaction, up to its end. */
  #continueTransaction(id: number): WriterReply | undefined {
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
    if (command.kind === 'run') {
      if (!command.isQuery) return this.#run(command.text, command.values);
      return this.#statements.prepare(command.text).all(...command.values) as object[];
    }
    this.#exec('commit');
    this.#openTransaction = undefined;
    return undefined;
  }

  /**
   * Nothing that was sent along may run: the engine may have rolled back by itself (disk full), and
   * what comes then would commit alone.
   */
  #abortTransaction(command: TransactionCommand, error: SqliteErrorParts): void {
    const id = command.transaction;
    this.#rollback();
    if (command.kind === 'run') this.#openTransaction = { id, error }; // Refuses all up to the end.
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
      // After a full disk and the like the engine has rolled back by itself.
    }
  }

  #close(): undefined {
    // The file is whole by itself then, and can be copied.
    this.#connection.exec('pragma wal_checkpoint(truncate)');
    this.#connection.close();
  }

  #attempt(id: number, work: () => number | object[] | undefined): CommandResult {
    try {
      const value = work();
      return value === undefined ? { id } : { id, value };
    } catch (error) {
      return { id, error: toErrorParts(error) };
    }
  }
}

function toReply(results: readonly CommandResult[]): WriterReply {
  return { results, commits: 0 };
}

const { path, port } = workerData as { path: string; port: MessagePort };
try {
  const connection = openWriter(await loadSqlite(), path);
  new Writer(port, connection);
  port.postMessage(toReply([]));
} catch (error) {
  port.postMessage({ ...toReply([]), failed: toErrorParts(error) });
  port.close();
}
