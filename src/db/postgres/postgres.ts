import { createBackgroundView, type DatabaseWithShares } from '../background.js';
import { ConcurrencyLimiter, inFlightMax, type Share } from '../concurrency-limiter.js';
import { type Database, dollar, type Notifier, render, type Sql } from '../database.js';
import { withDeadline } from '../deadline.js';
import { unavailable } from '../failures.js';
import type { DatabaseServerOptions } from '../options.js';
import { type SqlExecutor, Transaction, withRetries } from '../transaction.js';
import {
  isServerError,
  type PendingQuery,
  type PostgresClient,
  PostgresClients,
  type PostgresParameter,
} from './client.js';
import { isConnectionLost, isReadOnly, postgresError, postgresOpenError } from './errors.js';
import { PostgresNotifier } from './notifier.js';
import { assertSessionState, sessionQuery } from './session.js';

interface QueryResult {
  readonly rows: object[];
  readonly count: number;
}

const preparedMax = 500;
const variableArityPreparedMax = 200;

/** Named in each `begin`, because behind a pooler the default cannot be set. */
const isolation = 'isolation level read committed';

const timeoutError = (): Error => unavailable('timeout');

/**
 * A PostgreSQL database (14 or later), over a bounded pool.
 *
 * `bigint`, `count(*)` and `sum` are read as `number`; an unsafe integer rejects the query. The number
 * of statements and transactions in flight is limited (`inFlightMax`), and each has a deadline of
 * `connectMs + statementMs`; the package has neither limit.
 */
export class PostgresDatabase implements DatabaseWithShares {
  readonly dialect = 'postgres';
  /** Undefined behind a transaction pooler, which does not forward notifications. */
  readonly notifier: Notifier | undefined;
  readonly background: Database;
  readonly #options: DatabaseServerOptions;
  readonly #deadlineMs: number;
  readonly #limiter: ConcurrencyLimiter;
  readonly #prepared = new Set<string>();
  /**
   * Disables pipelining behind a pooler. The package sends the first half of the next statement before the
   * previous result arrives. When that result has arrived, the pooler gives the server connection to another
   * client, so the first half would arrive in the session of the other client. The hook returns `false`,
   * which reports the connection as full.
   */
  readonly #noPipelining: { readonly onexecute?: () => false };
  readonly #clients: PostgresClients;
  #lastResponseAt = 0;
  #closing: Promise<void> | undefined;

  private constructor(options: DatabaseServerOptions) {
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
    this.background = createBackgroundView(this);
  }

  /** Rejects when the database server cannot be reached, or its sessions have the wrong state. */
  static async open(options: DatabaseServerOptions): Promise<PostgresDatabase> {
    const db = new PostgresDatabase(options);
    try {
      const reading = db.#clients.use((client) => client.unsafe<object[]>(sessionQuery));
      const [state] = await withDeadline(reading, options.connectMs, timeoutError).catch(
        (cause: unknown) => {
          throw postgresOpenError(options, cause);
        },
      );
      assertSessionState(state, options);
      return db;
    } catch (error) {
      await db.#clients.close(0);
      throw error;
    }
  }

  async query<Row extends object>(statement: Sql, share?: Share): Promise<Row[]> {
    const { rows } = await this.#runStatement(statement, share);
    return rows as Row[];
  }

  async execute(statement: Sql, share?: Share): Promise<number> {
    return (await this.#runStatement(statement, share)).count;
  }

  transaction<Result>(work: (tx: Database) => Promise<Result>, share?: Share): Promise<Result> {
    return this.#limiter.runTransaction(() => withRetries(() => this.#runTransaction(work)), share);
  }

  close(): Promise<void> {
    this.#closing ??= this.#limiter.close().then(() => this.#clients.close(1));
    return this.#closing;
  }

  #runStatement(statement: Sql, share?: Share): Promise<QueryResult> {
    return this.#limiter.run(
      () => withRetries(() => this.#clients.use((client) => this.#run(client, statement))),
      share,
    );
  }

  /** Sends a statement. All statements of callers are passed to the package here. */
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
      this.#lastResponseAt = performance.now();
      return { rows: removeHoles(result), count: result.count ?? 0 };
    } catch (error) {
      if (isServerError(error)) this.#lastResponseAt = performance.now();
      if (isConnectionLost(error)) onLost();
      if (isReadOnly(error)) this.#clients.replaceReadOnly();
      throw postgresError(text, error);
    }
  }

  /**
   * Bounds the number of prepared statements, because the database server keeps them as long as the
   * connection is open.
   */
  #shouldPrepare(text: string, { hasVariableArity }: Sql): boolean {
    if (this.#prepared.has(text)) return true;
    const countMax = hasVariableArity === true ? variableArityPreparedMax : preparedMax;
    if (this.#prepared.size >= countMax) return false;
    this.#prepared.add(text);
    return true;
  }

  /**
   * Handles an exceeded deadline. If no response at all has arrived since `sentAt`, the database
   * server hangs or is unreachable, so all connections are replaced: statements on the old
   * connections would never settle.
   */
  #handleTimeout(sentAt: number): Error {
    const { log } = this.#options;
    const isSilent = this.#lastResponseAt < sentAt;
    log.warn({ dialect: this.dialect, isSilent }, 'database deadline exceeded');
    if (isSilent && this.#closing === undefined) {
      this.#lastResponseAt = performance.now(); // So that deadlines that end together cause one replacement.
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
      // The package might run the statement on the next connection, outside any transaction.
      if (isFinished) throw unavailable('timeout', { state: 'the transaction is over' });
    };
    let outcome: { readonly result: Result } | { readonly error: unknown } | undefined;
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
        // Wrapped, because the package would unpack an array.
        outcome = { result: await Transaction.run(this.dialect, executor, work) };
      } catch (error) {
        outcome = { error };
        // The package would send a rollback on the closed connection, which ends the process. While
        // this promise is pending, `begin` rejects as soon as it detects the closed connection.
        if (hasLostConnection) await new Promise<never>(() => {});
        throw error;
      }
    };
    const done = this.#clients.use((client) => client.begin(isolation, runWork));
    try {
      await withDeadline(done, this.#deadlineMs, () => this.#handleTimeout(sentAt));
    } catch (error) {
      isFinished = true;
      if (outcome !== undefined && 'error' in outcome) throw outcome.error;
      throw postgresError('begin or commit', error);
    }
    return unwrapOutcome(outcome);
  }
}

function unwrapOutcome<Result>(
  outcome: { result: Result } | { error: unknown } | undefined,
): Result {
  if (outcome !== undefined && 'result' in outcome) return outcome.result;
  throw new Error('Cannot commit: the transaction did not run');
}

/**
 * Removes leading holes, which the package leaves in the result after a query on the same
 * connection that failed mid-result (porsager/postgres#1181). `count` excludes them, but some
 * commands have no `count`.
 */
function removeHoles(rows: readonly object[]): object[] {
  const firstIndex = rows.findIndex((row) => row !== undefined);
  return firstIndex === -1 ? [] : rows.slice(firstIndex);
}

/**
 * Removes an unsent statement from the package's queue. A sent statement runs until the database
 * server ends it by `statement_timeout`, which behind a pooler (`prepare: false`) must be set on
 * the database server. For a sent statement, `cancel` would open another connection, and leave a
 * rejection unhandled if that fails.
 */
function dequeue(pending: PendingQuery): void {
  if ('state' in pending && pending.state === null) pending.cancel();
}
