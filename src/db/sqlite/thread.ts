import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads';
import type { Logger } from '../../logging/logger.js';
import { startThread } from '../../util/start-thread.js';
import type { Value } from '../database.js';
import { unavailable } from '../failures.js';
import { sqliteError } from './errors.js';
import type { BatchStatement, ThreadCommand, ThreadReply } from './messages.js';

interface PendingCommand {
  readonly text: string;
  readonly bytes: number;
  resolve(value: number | object[] | undefined): void;
  reject(error: Error): void;
}

/** A transaction in the writer thread. The caller must call `end`, also after an error. */
export interface WriterTransaction {
  execute(text: string, values: readonly Value[]): Promise<number>;
  query(text: string, values: readonly Value[]): Promise<object[]>;
  end(kind: 'commit' | 'rollback'): Promise<void>;
}

type CommandWithoutId = ThreadCommand extends infer Command
  ? Command extends ThreadCommand
    ? Omit<Command, 'id'>
    : never
  : never;

const entries = {
  reader: new URL('./reader', import.meta.url),
  writer: new URL('./writer', import.meta.url),
};
const pendingMax = 10_000;
const pendingBytesMax = 64 * 1024 * 1024;

/**
 * Client of the reader thread or the writer thread. Commands of one event loop iteration are sent in one
 * message. While 10,000 commands or 64 MiB of them are pending, statements are refused.
 *
 * If the thread ends, all pending and later commands reject with `service_unavailable`.
 */
export class DatabaseThread {
  readonly #port: MessagePort;
  readonly #exited: Promise<void>;
  readonly #pending = new Map<number, PendingCommand>();
  #unsent: ThreadCommand[] = [];
  #lastId = 0;
  #pendingBytes = 0;
  #commits = 0;
  #walBytes = 0;
  #endError: Error | undefined;

  private constructor(worker: Worker, port: MessagePort, log: Logger) {
    this.#port = port;
    port.on('message', (reply: ThreadReply) => this.#receive(reply));
    this.#exited = new Promise((resolve) => {
      worker.once('error', (cause) => {
        log.error({ cause }, 'database thread failed');
        this.#failPending(cause);
      });
      worker.once('exit', () => {
        this.#failPending(undefined);
        port.close();
        resolve();
      });
    });
  }

  /** Starts a thread of `reader.ts` or `writer.ts`. Rejects when it cannot open the file. */
  static async start(
    name: 'reader' | 'writer',
    { path, log }: { path: string; log: Logger },
  ): Promise<DatabaseThread> {
    const { port1, port2 } = new MessageChannel();
    const worker = startThread(entries[name], {
      workerData: { path, port: port2 },
      transferList: [port2],
    });
    const { startError } = await receiveFirstReply(worker, port1);
    if (startError !== undefined) throw new Error(startError.message);
    return new DatabaseThread(worker, port1, log);
  }

  /** Number of commits so far. Lower than the number of statements, because of group commit. */
  get commits(): number {
    return this.#commits;
  }

  /** Size of the write-ahead log after the last commit. */
  get walBytes(): number {
    return this.#walBytes;
  }

  /** Runs a query on the reader thread. */
  query(text: string, values: readonly Value[]): Promise<object[]> {
    return this.#send({ kind: 'query', text, values }) as Promise<object[]>;
  }

  execute(text: string, values: readonly Value[]): Promise<number> {
    return this.#send({ kind: 'execute', text, values }) as Promise<number>;
  }

  /**
   * Commits all statements and returns true. If any statement matches no row, commits no statement and
   * returns false.
   */
  async batch(statements: readonly BatchStatement[]): Promise<boolean> {
    return (await this.#send({ kind: 'batch', statements })) !== 0;
  }

  /**
   * Begins a transaction, which has the thread to itself once all earlier commands have run. The first
   * commands of the transaction are sent together with `begin` and fail if `begin` fails. Throws
   * `service_unavailable` when the queue is full.
   */
  begin(): WriterTransaction {
    if (this.#endError !== undefined) throw this.#endError;
    if (this.#isFull(0)) throw unavailable('overloaded');
    const transactionId = this.#lastId + 1; // The id that `begin` gets.
    this.#send({ kind: 'begin' }).catch(() => undefined); // Later commands reject as well.
    const run = (isQuery: boolean, text: string, values: readonly Value[]) =>
      this.#send({ kind: 'transactionStatement', transactionId, isQuery, text, values });
    return {
      execute: (text, values) => run(false, text, values) as Promise<number>,
      query: (text, values) => run(true, text, values) as Promise<object[]>,
      end: (kind) => this.#send({ kind, transactionId }) as Promise<undefined>,
    };
  }

  /** Ends the thread after all earlier commands. Never calls `terminate()`, which may abort the process. */
  async close(): Promise<void> {
    await this.#send({ kind: 'close' }).catch(() => undefined); // The thread has ended already.
    await this.#exited;
  }

  #send(command: CommandWithoutId): Promise<number | object[] | undefined> {
    if (this.#endError !== undefined) return Promise.reject(this.#endError);
    const { text, bytes } = measureCommand(command);
    // Ending a transaction and closing are never refused, because they free the queue.
    if (bytes > 0 && this.#isFull(bytes)) return Promise.reject(unavailable('overloaded'));
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      this.#pendingBytes += bytes;
      this.#pending.set(id, { text, bytes, resolve, reject });
      if (this.#unsent.push({ ...command, id } as ThreadCommand) === 1)
        setImmediate(() => this.#flush());
    });
  }

  #isFull(bytes: number): boolean {
    return (
      this.#pending.size >= pendingMax ||
      (bytes > 0 && this.#pendingBytes + bytes > pendingBytesMax)
    );
  }

  #flush(): void {
    const commands = this.#unsent;
    this.#unsent = [];
    this.#port.postMessage(commands);
  }

  #receive({ results, commits, walBytes = this.#walBytes }: ThreadReply): void {
    this.#commits += commits;
    this.#walBytes = walBytes;
    for (const { id, value, error } of results) {
      const pending = this.#pending.get(id);
      if (pending === undefined) continue;
      this.#pending.delete(id);
      this.#pendingBytes -= pending.bytes;
      if (error === undefined) pending.resolve(value);
      else pending.reject(sqliteError(pending.text, error));
    }
  }

  #failPending(cause: unknown): void {
    this.#endError ??= unavailable('refused', {
      state: 'the database thread has ended',
      cause,
      retryAfterMs: 5000,
    });
    for (const { reject } of this.#pending.values()) reject(this.#endError);
    this.#pending.clear();
  }
}

function receiveFirstReply(worker: Worker, port: MessagePort): Promise<ThreadReply> {
  return new Promise((resolve, reject) => {
    port.once('message', resolve);
    worker.once('error', reject);
    worker.once('exit', () => reject(new Error('Cannot open database: its thread ended at once')));
  });
}

/**
 * Returns the text of a command for error messages, and the bytes that the command holds while it
 * is pending: 0 for a command without statements.
 */
function measureCommand(command: CommandWithoutId): {
  readonly text: string;
  readonly bytes: number;
} {
  if (command.kind === 'batch') {
    const bytes = command.statements.reduce(
      (sum, { text, values }) => sum + getSize(text, values),
      0,
    );
    return { text: command.statements.map(({ text }) => text).join('; '), bytes };
  }
  if (!('text' in command)) return { text: command.kind, bytes: 0 };
  return { text: command.text, bytes: getSize(command.text, command.values) };
}

/**
 * Returns the size of a statement in bytes: one per character of text, two per character of a
 * value.
 */
function getSize(text: string, values: readonly Value[]): number {
  let bytes = text.length;
  for (const value of values) {
    if (typeof value === 'string') bytes += value.length * 2;
    else bytes += value instanceof Uint8Array ? value.byteLength : 8;
  }
  return bytes;
}
