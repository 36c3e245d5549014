import { Admission } from '../concurrency-limiter.js';
import { type Database, dollar, render, type Sql, type WakeUps } from '../database.js';
import { withDeadline } from '../deadline.js';
import { unavailable } from '../failures.js';
import type { ServerOptions } from '../options.js';
import { retried, type Session, Transaction } from '../transaction.js';
import {
  isServerError,
  type PendingQuery,
  type PostgresClient,
  PostgresClients,
  type PostgresParameter,
} from './client.js';
import { isConnectionLost, postgresError, postgresOpenError } from './errors.js';
import { PostgresWakeUps } from './notifier.js';

interface Answer {
  readonly rows: object[];
  readonly count: number;
}

const inFlightMax = 2000;
const preparedMax = 500;
const elasticPreparedMax = 200;

const late = (): Error => unavailable('the database does not answer in time');

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
  readonly wakeUps: WakeUps | undefined;
  readonly #options: ServerOptions;
  readonly #deadlineMs: number;
  readonly #admission: Admission;
  readonly #prepared = new Set<string>();
  /**
   * Behind a pooler nothing is sent on a connection before the answer to what was sent last: the pooler
   * gives its own connection away with that answer, and the first half of the next statement, which
   * the package sends without its end, along with it. So the package is told that there is no room.
   */
  readonly #alone: { readonly onexecute?: () => false };
  readonly #clients: PostgresClients;
  #answeredAt = 0;
  #closing: Promise<void> | undefined;

  private constructor(options: ServerOptions) {
    const { connectMs, statementMs, connectionsMax } = options;
    this.#options = options;
    this.#deadlineMs = connectMs + statementMs;
    this.#alone = options.prepare ? {} : { onexecute: () => false };
    const transactionsMax = Math.max(1, connectionsMax - 1);
    this.#admission = new Admission({ inFlightMax, transactionsMax, waitMs: this.#deadlineMs });
    this.#clients = new PostgresClients(options);
    this.wakeUps = options.prepare ? new PostgresWakeUps(options) : undefined;
  }

  /** Rejects when the server cannot be reached. */
  static async open(options: ServerOptions): Promise<PostgresDatabase> {
    const db = new PostgresDatabase(options);
    try {
      const first = db.#clients.use((client) => client.unsafe('select 1'));
      await withDeadline(first, options.connectMs, late);
      return db;
    } catch (error) {
      await db.#clients.close(0);
      throw postgresOpenError(options, error);
    }
  }

  async query<Row extends object>(statement: Sql): Promise<Row[]> {
    const { rows } = await this.#single(statement);
    return rows as Row[];
  }

  async execute(statement: Sql): Promise<number> {
    return (await this.#single(statement)).count;
  }

  transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    return this.#admission.transact(() => retried(() => this.#transact(work)));
  }

  close(): Promise<void> {
    this.#closing ??= this.#admission.close().then(() => this.#clients.close(1));
    return this.#closing;
  }

  #single(statement: Sql): Promise<Answer> {
    return this.#admission.run(() =>
      retried(() => this.#clients.use((client) => this.#run(client, statement))),
    );
  }

  /** The one place where SQL meets the package. */
  async #run(
    client: Pick<PostgresClient, 'unsafe'>,
    statement: Sql,
    onLost: () => void = () => {},
  ): Promise<Answer> {
    const text = render(statement, dollar);
    const prepare = this.#options.prepare && this.#isWorthPreparing(text, statement);
    const sentAt = performance.now();
    const values = statement.values as PostgresParameter[];
    const pending = client.unsafe<object[]>(text, values, { prepare, ...this.#alone });
    try {
      const result = await withDeadline(pending, this.#deadlineMs, () => {
        forget(pending);
        return this.#expire(sentAt);
      });
      this.#answeredAt = performance.now();
      return { rows: withoutHoles(result), count: result.count ?? 0 };
    } catch (error) {
      if (isServerError(error)) this.#answeredAt = performance.now();
      if (isConnectionLost(error)) onLost();
      throw postgresError(text, error);
    }
  }

  /** The server keeps what is prepared as long as the connection lives, hence the bounds. */
  #isWorthPreparing(text: string, { isElastic }: Sql): boolean {
    if (this.#prepared.has(text)) return true;
    const countMax = isElastic === true ? elasticPreparedMax : preparedMax;
    if (this.#prepared.size >= countMax) return false;
    this.#prepared.add(text);
    return true;
  }

  /**
   * A deadline is over. If nothing at all was answered since, the server is frozen or the way to it
   * is cut: all connections are given up for new ones, for on the old ones nothing would ever end.
   */
  #expire(sentAt: number): Error {
    const { log } = this.#options;
    const isSilent = this.#answeredAt < sentAt;
    log.warn({ dialect: this.dialect, isSilent }, 'database passed a deadline');
    if (isSilent && this.#closing === undefined) {
      this.#answeredAt = performance.now(); // Once for all that expire together.
      this.#clients.giveUp();
    }
    return late();
  }

  async #transact<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    const sentAt = performance.now();
    let isOver = false;
    let isLost = false;
    const onLost = (): void => {
      isLost = true;
    };
    const refuse = (): void => {
      // The package might run it on the next connection, outside of any transaction.
      if (isOver) throw unavailable('the transaction is over');
    };
    let settled: { readonly result: Result } | { readonly error: unknown } | undefined;
    const begun = async (client: Pick<PostgresClient, 'unsafe'>): Promise<void> => {
      refuse();
      const session: Session = {
        query: async <Row extends object>(statement: Sql) => {
          refuse();
          return (await this.#run(client, statement, onLost)).rows as Row[];
        },
        execute: async (statement) => {
          refuse();
          return (await this.#run(client, statement, onLost)).count;
        },
      };
      try {
        // Kept in a box: the package would take an array apart.
        settled = { result: await Transaction.run(this.dialect, session, work) };
      } catch (error) {
        settled = { error };
        // The package would send its rollback to nobody, and end the process by that. Without an
        // answer it rejects as soon as it notices that the connection is closed.
        if (isLost) await new Promise<never>(() => {});
        throw error;
      }
    };
    const done = this.#clients.use((client) => client.begin(begun));
    try {
      await withDeadline(done, this.#deadlineMs, () => this.#expire(sentAt));
    } catch (error) {
      isOver = true;
      if (settled !== undefined && 'error' in settled) throw settled.error;
      throw postgresError('begin or commit', error);
    }
    return outcomeOf(settled);
  }
}

function outcomeOf<Result>(settled: { result: Result } | { error: unknown } | undefined): Result {
  if (settled !== undefined && 'result' in settled) return settled.result;
  throw new Error('Cannot commit: the transaction did not run');
}

/**
 * After a query that failed while its rows came, the next on that connection has holes in front of
 * its rows (porsager/postgres#1181). They are not counted by `count`, which some commands lack.
 */
function withoutHoles(rows: readonly object[]): object[] {
  const first = rows.findIndex((row) => row !== undefined);
  return first === -1 ? [] : rows.slice(first);
}

/**
 * Takes a statement that was not sent yet out of the package's queue. One that was sent goes on until
 * the server ends it: by `statement_timeout`, but behind a pooler (`prepare: false`) only if it is set
 * there. `cancel` would open another connection for it, and drop a promise that rejects where there is
 * none.
 */
function forget(pending: PendingQuery): void {
  if ('state' in pending && pending.state === null) pending.cancel();
}
