import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads';
import type { Logger } from '../../logging/logger.js';
import { startThread } from '../../util/start-thread.js';
import type { Value } from '../database.js';
import { unavailable } from '../failures.js';
import { sqliteError } from './errors.js';
import type { BatchStatement, WriterCommand, WriterReply } from './messages.js';

interface PendingCommand {
  readonly text: string;
  readonly bytes: number;
  resolve(value: number | object[] | undefined): void;
  reject(error: Error): void;
}

/** A transaction of the thread; `end` it, whatever happens. */
export interface WriterTransaction {
  run(text: string, values: readonly Value[]): Promise<number>;
  query(text: string, values: readonly Value[]): Promise<object[]>;
  end(kind: 'commit' | 'rollback'): Promise<void>;
}

type CommandWithoutId = WriterCommand extends infer One
  ? One extends WriterCommand
    ? Omit<One, 'id'>
    : never
  : never;

const pendingMax = 10_000;
const pendingBytesMax = 64 * 1024 * 1024;

/**
 * The asking side of the writer thread. What is asked in one turn of the event loop travels in one
 * message. At 10,000 unanswered orders or 64 MiB of them, writes are refused.
 *
 * If the thread dies, all that is unanswered and all that follows is `service_unavailable`.
 */
export class WriterThread {
  readonly #port: MessagePort;
  readonly #exited: Promise<void>;
  readonly #pending = new Map<number, PendingCommand>();
  #unsent: WriterCommand[] = [];
  #lastId = 0;
  #bytes = 0;
  #commits = 0;
  #endError: Error | undefined;

  private constructor(worker: Worker, port: MessagePort, log: Logger) {
    this.#port = port;
    port.on('message', (reply: WriterReply) => this.#receive(reply));
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

  /** Rejects when the file cannot be opened for writing. */
  static async start(path: string, log: Logger): Promise<WriterThread> {
    const { port1, port2 } = new MessageChannel();
    const worker = startThread(new URL('./writer', import.meta.url), {
      workerData: { path, port: port2 },
      transferList: [port2],
    });
    const { failed } = await receiveFirstReply(worker, port1);
    if (failed !== undefined) throw new Error(failed.message);
    return new WriterThread(worker, port1, log);
  }

  /** Transactions committed so far; together with the statements it tells how well they group. */
  get commits(): number {
    return this.#commits;
  }

  execute(text: string, values: readonly Value[]): Promise<number> {
    return this.#send({ kind: 'execute', text, values }) as Promise<number>;
  }

  /** All of it committed; or false, and nothing is done, when a statement matched no row. */
  async batch(statements: readonly BatchStatement[]): Promise<boolean> {
    return (await this.#send({ kind: 'batch', statements })) !== 0;
  }

  /**
   * A transaction, which has the thread to itself when its turn comes. What it is asked first travels
   * along with its beginning, and fails when that fails. Throws `service_unavailable` when full.
   */
  begin(): WriterTransaction {
    if (this.#endError !== undefined) throw this.#endError;
    if (this.#isFull(0)) throw queueFullError();
    const transaction = this.#lastId + 1;
    this.#send({ kind: 'begin' }).catch(() => undefined); // All that is asked of it rejects, too.
    const run = (isQuery: boolean, text: string, values: readonly Value[]) =>
      this.#send({ kind: 'run', transaction, isQuery, text, values });
    return {
      run: (text, values) => run(false, text, values) as Promise<number>,
      query: (text, values) => run(true, text, values) as Promise<object[]>,
      end: (kind) => this.#send({ kind, transaction }) as Promise<undefined>,
    };
  }

  /** After all that was asked before. Never `terminate()`: that may abort the whole process. */
  async close(): Promise<void> {
    await this.#send({ kind: 'close' }).catch(() => undefined); // It has died already.
    await this.#exited;
  }

  #send(command: CommandWithoutId): Promise<number | object[] | undefined> {
    if (this.#endError !== undefined) return Promise.reject(this.#endError);
    const { text, bytes } = measureCommand(command);
    // An end or a close is never refused: what is full gets empty by it.
    if (bytes > 0 && this.#isFull(bytes)) return Promise.reject(queueFullError());
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      this.#bytes += bytes;
      this.#pending.set(id, { text, bytes, resolve, reject });
      if (this.#unsent.push({ ...command, id } as WriterCommand) === 1)
        setImmediate(() => this.#flush());
    });
  }

  #isFull(bytes: number): boolean {
    return this.#pending.size >= pendingMax || (bytes > 0 && this.#bytes + bytes > pendingBytesMax);
  }

  #flush(): void {
    const commands = this.#unsent;
    this.#unsent = [];
    this.#port.postMessage(commands);
  }

  #receive({ results, commits }: WriterReply): void {
    this.#commits += commits;
    for (const { id, value, error } of results) {
      const pending = this.#pending.get(id);
      if (pending === undefined) continue;
      this.#pending.delete(id);
      this.#bytes -= pending.bytes;
      if (error === undefined) pending.resolve(value);
      else pending.reject(sqliteError(pending.text, error));
    }
  }

  #failPending(cause: unknown): void {
    this.#endError ??= unavailable('the database thread has ended', cause, 5000);
    for (const { reject } of this.#pending.values()) reject(this.#endError);
    this.#pending.clear();
  }
}

function queueFullError(): Error {
  return unavailable('too many writes are waiting');
}

function receiveFirstReply(worker: Worker, port: MessagePort): Promise<WriterReply> {
  return new Promise((resolve, reject) => {
    port.once('message', resolve);
    worker.once('error', reject);
    worker.once('exit', () => reject(new Error('Cannot open database: its thread ended at once')));
  });
}

/** What its error would name, and how much waits with it: nothing, if it is the end of something. */
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

/** Text counts once for all: the thread gets a copy each time, but they are short. */
function getSize(text: string, values: readonly Value[]): number {
  let bytes = text.length;
  for (const value of values) {
    if (typeof value === 'string') bytes += value.length * 2;
    else bytes += value instanceof Uint8Array ? value.byteLength : 8;
  }
  return bytes;
}
