import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { endsTransaction } from './errors.js';
import { openWriter, Statements } from './file.js';
import { loadSqlite, type SqliteConnection } from './load.js';
import {
  type Answer,
  type Order,
  partsOf,
  type Report,
  type SqliteErrorParts,
  type Step,
} from './messages.js';

type Execute = Extract<Order, { kind: 'execute' }>;
type Batch = Extract<Order, { kind: 'batch' }>;
type Inside = Extract<Order, { transaction: number }>;

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
  readonly #statements: Statements;
  readonly #waiting: Order[] = []; // In order of arrival: all but `#inside`.
  /** Orders of transactions, by their names: also of those that have not begun yet. */
  readonly #inside = new Map<number, Inside[]>();
  /** The transaction that has the writer to itself; `error` when it could not begin. */
  #open: { readonly id: number; readonly error: SqliteErrorParts | undefined } | undefined;
  #isClosed = false;

  constructor(port: MessagePort, connection: SqliteConnection) {
    this.#port = port;
    this.#connection = connection;
    this.#statements = new Statements(connection);
    port.on('message', (orders: readonly Order[]) => {
      this.#take(orders);
      this.#work();
    });
  }

  #take(orders: readonly Order[]): void {
    for (const order of orders) {
      if (!('transaction' in order)) {
        this.#waiting.push(order);
        continue;
      }
      const inside = this.#inside.get(order.transaction);
      if (inside === undefined) this.#inside.set(order.transaction, [order]);
      else inside.push(order);
    }
  }

  /** Goes on until nothing is left that can be done now. */
  #work(): void {
    while (!this.#isClosed) {
      this.#takeArrived();
      const report = this.#open === undefined ? this.#next() : this.#goOn(this.#open.id);
      if (report === undefined) return;
      this.#port.postMessage(report);
    }
    this.#port.close();
  }

  /** Whoever arrived meanwhile joins the next group. */
  #takeArrived(): void {
    while (this.#waiting.length < groupMax) {
      const arrived = receiveMessageOnPort(this.#port);
      if (arrived === undefined) return;
      this.#take(arrived.message as readonly Order[]);
    }
  }

  #next(): Report | undefined {
    const [first] = this.#waiting;
    if (first?.kind === 'execute') return this.#commitGroup(this.#takeGroup());
    if (first === undefined) return undefined;
    this.#waiting.shift();
    if (first.kind === 'batch') return this.#commitBatch(first);
    if (first.kind === 'begin') return this.#begin(first.id);
    this.#isClosed = true;
    return report([this.#answer(first.id, () => this.#close())]);
  }

  /** What was sent along is done in the same breath. */
  #begin(id: number): Report {
    const begun = this.#answer(id, () => this.#exec('begin immediate'));
    this.#open = { id, error: begun.error };
    const more = this.#goOn(id);
    return more === undefined ? report([begun]) : { ...more, answers: [begun, ...more.answers] };
  }

  #takeGroup(): Execute[] {
    const end = this.#waiting.findIndex(({ kind }) => kind !== 'execute');
    const count = Math.min(end === -1 ? this.#waiting.length : end, groupMax);
    return this.#waiting.splice(0, count) as Execute[]; // Safe: cut before the first other one.
  }

  #commitGroup(group: readonly Execute[]): Report {
    const answers: Answer[] = [];
    try {
      this.#statements.prepare('begin immediate').run();
      for (const { id, text, values } of group) {
        const answer = this.#answer(id, () => this.#run(text, values));
        if (answer.error !== undefined && endsTransaction(answer.error)) throw answer.error;
        answers.push(answer);
      }
      this.#statements.prepare('commit').run();
      return { answers, commits: 1 };
    } catch (cause) {
      this.#rollback();
      const error = cause instanceof Error ? partsOf(cause) : (cause as Answer['error'] & object);
      return report(group.map(({ id }) => ({ id, error })));
    }
  }

  #commitBatch({ id, steps }: Batch): Report {
    try {
      this.#statements.prepare('begin immediate').run();
      const value = this.#runAll(steps);
      if (value === 0) {
        this.#rollback();
        return report([{ id, value }]);
      }
      this.#statements.prepare('commit').run();
      return { answers: [{ id, value }], commits: 1 };
    } catch (error) {
      this.#rollback();
      return report([{ id, error: partsOf(error) }]);
    }
  }

  /** How many rows matched; 0 as soon as something matched none. */
  #runAll(steps: readonly Step[]): number {
    let matched = 0;
    for (const { text, values } of steps) {
      const changes = this.#run(text, values);
      if (changes === 0) return 0;
      matched += changes;
    }
    return matched;
  }

  /** All that has come for the open transaction, up to its end. */
  #goOn(id: number): Report | undefined {
    const answers: Answer[] = [];
    const orders = this.#inside.get(id);
    let commits = 0;
    while (this.#open !== undefined) {
      const order = orders?.shift();
      if (order === undefined) break;
      const answer = this.#answer(order.id, () => this.#obey(order));
      if (order.kind === 'commit' && answer.error === undefined) commits = 1;
      if (order.kind !== 'rollback' && answer.error !== undefined) this.#fail(order, answer.error);
      answers.push(answer);
    }
    if (this.#open === undefined) this.#inside.delete(id);
    return answers.length === 0 ? undefined : { answers, commits };
  }

  #obey(order: Inside): number | object[] | undefined {
    if (order.kind === 'rollback') return this.#rollback();
    const error = this.#open?.error;
    if (error !== undefined) throw Object.assign(new Error(error.message), error);
    if (order.kind === 'run') {
      if (!order.isQuery) return this.#run(order.text, order.values);
      return this.#statements.prepare(order.text).all(...order.values) as object[];
    }
    this.#exec('commit');
    this.#open = undefined;
    return undefined;
  }

  /**
   * Nothing that was sent along may run: the engine may have rolled back by itself (disk full), and
   * what comes then would commit alone.
   */
  #fail(order: Inside, error: SqliteErrorParts): void {
    const id = order.transaction;
    this.#rollback();
    if (order.kind === 'run') this.#open = { id, error }; // Refuses all up to the end.
  }

  #run(text: string, values: readonly unknown[]): number {
    return Number(this.#statements.prepare(text).run(...values).changes);
  }

  #exec(text: string): undefined {
    this.#connection.exec(text);
  }

  #rollback(): undefined {
    const hasBegun = this.#open?.error === undefined;
    this.#open = undefined;
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

  #answer(id: number, work: () => number | object[] | undefined): Answer {
    try {
      const value = work();
      return value === undefined ? { id } : { id, value };
    } catch (error) {
      return { id, error: partsOf(error) };
    }
  }
}

function report(answers: readonly Answer[]): Report {
  return { answers, commits: 0 };
}

const { path, port } = workerData as { path: string; port: MessagePort };
try {
  const connection = openWriter(await loadSqlite(), path);
  new Writer(port, connection);
  port.postMessage(report([]));
} catch (error) {
  port.postMessage({ ...report([]), failed: partsOf(error) });
  port.close();
}
