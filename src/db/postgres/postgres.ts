import { ConcurrencyLimiter } from '../concurrency-limiter.js';
import { type Database, dollar, type Notifier, render, type Sql } from '../database.js';
import { withDeadline } from '../deadline.js';
import { unavailable } from '../failures.js';
import type { ServerOptions } from '../options.js';
import { type SqlExecutor, Transaction, withRetries } from '../transaction.js';
import {
  isServerError,
  type PendingQuery,
  type PostgresClient,
  PostgresClients,
  type PostgresParameter,
} from './client.js';
import { isConnectionLost, postgresError, postgresOpenError } from './errors.js';
import { PostgresNotifier } from './notifier.js';

interface QueryResult {
  readonly rows: object[];
  readonly count: number;
}

const inFlightMax = 2000;
const preparedMax = 500;
const variableArityPreparedMax = 200;

const timeoutError = (): Error => unavailable('the database does not answer in time');

/**
 * PostgreSQL 14 and later, over a bounded pool.
 *
 * `bigint`, `count(*)` and `sum` arrive as `number`; one that is no safe integer rejects the query.
 * No caller waits for ever: at most 2,000 statements and transactions are under way, and each has a
 * deadline of `connectMs + statementMs`, because the package has neither.
 */
export class PostgresDatabase implements Database {
  readonly dialect = 'postgres';
  /** A pooler that shares connections between transactions does not pass notifications on. */
  readonly notifier: Notifier | undefined;
  readonly #options: ServerOptions;
  readonly #deadlineMs: number;
  readonly #limiter: ConcurrencyLimiter;
  readonly #prepared = new Set<string>();
  /**
   * Behind a pooler nothing is sent on a connection before the answer to what was sent last: the pooler
   * gives its own connection away with that answer, and the first half of the next statement, which
   * the package sends without its end, along with it. So the package is told that there is no room.
   */
  readonly #noPipelining: { readonly onexecute?: () => false };
  readonly #clients: PostgresClients;
  #lastAnswerAt = 0;
  #closing: Promise<void> | undefined;

  private constructor(options: ServerOptions) {
    const { connectMs, statementMs, connectionsMax } = options;
    this.#options = options;
    this.#deadlineMs = connectMs + statementMs;
    this.#noPipelining = options.prepare ? {} : { onexecute: () => false };
    const transactionsMax = Math.max(1, connectionsMax - 1);
    this.#limiter = new ConcurrencyLimiter({
      inFlightMax,
      transactionsMax,
      waitMs: this.#deadlineMs,
    });
    this.#clients = new PostgresClients(options);
    this.notifier = options.prepare ? new PostgresNotifier(options) : undefined;
  }

  /** Rejects when the server cannot be reached. */
  static async open(options: ServerOptions): Promise<PostgresDatabase> {
    const db = new PostgresDatabase(options);
    try {
      const first = db.#clients.use((client) => client.unsafe('select 1'));
      await withDeadline(first, options.connectMs, timeoutError);
      return db;
    } catch (error) {
      await db.#clients.close(0);
      throw postgresOpenError(options, error);
    }
  }

  async query<Row extends object>(statement: Sql): Promise<Row[]> {
    const { rows } = await this.#runStatement(statement);
    return rows as Row[];
  }

  async execute(statement: Sql): Promise<number> {
    return (await this.#runStatement(statement)).count;
  }

  transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    return this.#limiter.runTransaction(() => withRetries(() => this.#runTransaction(work)));
  }

  close(): Promise<void> {
    this.#closing ??= this.#limiter.close().then(() => this.#clients.close(1));
    return this.#closing;
  }

  #runStatement(statement: Sql): Promise<QueryResult> {
    return this.#limiter.run(() =>
      withRetries(() => this.#clients.use((client) => this.#run(client, statement))),
    );
  }

  /** The one place where SQL meets the package. */
  async #run(
    client: Pick<PostgresClient, 'unsafe'>,
    statement: Sql,
    onLost: () => void = () => {},
  ): Promise<QueryResult> {
    const text = render(statement, dollar);
    const prepare = this.#options.prepare && this.#shouldPrepare(text, statement);
    const sentAt = performance.now();
    const values = statement.values as PostgresParameter[];
    const pending = client.unsafe<object[]>(text, values, { prepare, ...this.#noPipelining });
    try {
      const result = await withDeadline(pending, this.#deadlineMs, () => {
        dequeue(pending);
        return this.#handleTimeout(sentAt);
      });
      this.#lastAnswerAt = performance.now();
      return { rows: removeHoles(result), count: result.count ?? 0 };
    } catch (error) {
      if (isServerError(error)) this.#lastAnswerAt = performance.now();
      if (isConnectionLost(error)) onLost();
      throw postgresError(text, error);
    }
  }

  /** The server keeps what is prepared as long as the connection lives, hence the bounds. */
  #shouldPrepare(text: string, { hasVariableArity }: Sql): boolean {
    if (this.#prepared.has(text)) return true;
    const countMax = hasVariableArity === true ? variableArityPreparedMax : preparedMax;
    if (this.#prepared.size >= countMax) return false;
    this.#prepared.add(text);
    return true;
  }

  /**
   * A deadline is over. If nothing at all was answered since, the server is frozen or the way to it
   * is cut: all connections are given up for new ones, for on the old ones nothing would ever end.
   */
  #handleTimeout(sentAt: number): Error {
    const { log } = this.#options;
    const isSilent = this.#lastAnswerAt < sentAt;
    log.warn({ dialect: this.dialect, isSilent }, 'database deadline exceeded');
    if (isSilent && this.#closing === undefined) {
      this.#lastAnswerAt = performance.now(); // Once for all that expire together.
      this.#clients.replaceNow();
    }
    return timeoutError();
  }

  async #runTransaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    const sentAt = performance.now();
    let isFinished = false;
    let hasLostConnection = false;
    const onLost = (): void => {
      hasLostConnection = true;
    };
    const assertActive = (): void => {
      // The package might run it on the next connection, outside of any transaction.
      if (isFinished) throw unavailable('the transaction is over');
    };
    let settled: { readonly result: Result } | { readonly error: unknown } | undefined;
    const runWork = async (client: Pick<PostgresClient, 'unsafe'>): Promise<void> => {
      assertActive();
      const executor: SqlExecutor = {
        query: async <Row extends object>(statement: Sql) => {
          assertActive();
          return (await this.#run(client, statement, onLost)).rows as Row[];
        },
        execute: async (statement) => {
          assertActive();
          return (await this.#run(client, statement, onLost)).count;
        },
      };
      try {
        // Kept in a box: the package would take an array apart.
        settled = { result: await Transaction.run(this.dialect, executor, work) };
      } catch (error) {
        settled = { error };
        // The package would send its rollback to nobody, and end the process by that. Without an
        // answer it rejects as soon as it notices that the connection is closed.
        if (hasLostConnection) await new Promise<never>(() => {});
        throw error;
      }
    };
    const done = this.#clients.use((client) => client.begin(runWork));
    try {
      await withDeadline(done, this.#deadlineMs, () => this.#handleTimeout(sentAt));
    } catch (error) {
      isFinished = true;
      if (settled !== undefined && 'error' in settled) throw settled.error;
      throw postgresError('begin or commit', error);
    }
    return unwrapOutcome(settled);
  }
}

function unwrapOutcome<Result>(
  settled: { result: Result } | { error: unknown } | undefined,
): Result {
  if (settled !== undefined && 'result' in settled) return settled.result;
  throw new Error('Cannot commit: the transaction did not run');
}

/**
 * After a query that failed while its rows came, the next on that connection has holes in front of
 * its rows (porsager/postgres#1181). They are not counted by `count`, which some commands lack.
 */
function removeHoles(rows: readonly object[]): object[] {
  const first = rows.findIndex((row) => row !== undefined);
  return first === -1 ? [] : rows.slice(first);
}

/**
 * Takes a statement that was not sent yet out of the package's queue. One that was sent goes on until
 * the server ends it: by `statement_timeout`, but behind a pooler (`prepare: false`) only if it is set
 * there. `cancel` would open another connection for it, and drop a promise that rejects where there is
 * none.
 */
function dequeue(pending: PendingQuery): void {
  if ('state' in pending && pending.state === null) pending.cancel();
}
