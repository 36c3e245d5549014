import type { DatabaseServerOptions } from '../options.js';

/** A variable that every session sets: its name, its value, and that value as the server returns it. */
type SessionVariable = readonly [name: string, value: string, read: string];

/**
 * The session state that Herald's statements depend on. A server can have other defaults: by its options,
 * by `set global`, or by `init_connect`, which runs before Herald sets these variables.
 */
const variables: readonly SessionVariable[] = [
  ['autocommit', '1', '1'],
  ['completion_type', "'NO_CHAIN'", 'NO_CHAIN'],
  ['foreign_key_checks', '1', '1'],
  ['sql_auto_is_null', '0', '0'],
  ['sql_big_selects', '1', '1'], // Otherwise `max_join_size` refuses statements.
  [
    'sql_mode',
    "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',
  ],
  ['sql_safe_updates', '0', '0'],
  ['sql_select_limit', '9007199254740991', '9007199254740991'], // 2^53 - 1, because larger numbers cannot be read.
  ['time_zone', "'+00:00'", '+00:00'],
  ['unique_checks', '1', '1'],
];

/** Set by `set names`, and verified with the variables. */
const charsetVariables = [
  'character_set_client',
  'character_set_connection',
  'character_set_results',
];

/**
 * Statements that every connection runs before all others. The connections of the pool also set time limits
 * (`buildSessionSql`); separate connections (`connectMariadb`), such as that of a migration, do not.
 */
export const sessionSql: readonly string[] = [
  'set names utf8mb4 collate utf8mb4_bin', // A server may ignore what the client says when it connects.
  'set session transaction isolation level read committed',
  `set ${variables.map(([name, value]) => `session ${name} = ${value}`).join(', ')}`,
];

/**
 * Builds the first statements of a connection of the pool: `sessionSql`, and time limits for statements and
 * for transactions that are left open.
 */
export function buildSessionSql({
  dialect,
  statementMs,
  connectMs,
}: DatabaseServerOptions): string[] {
  const limits = {
    mariadb: [
      `set session max_statement_time = ${statementMs / 1000}`,
      `set session idle_transaction_timeout = ${toSeconds(connectMs + statementMs)}`,
    ],
    // Applies to `select` only; `socketTimeout` limits other statements.
    mysql: [`set session max_execution_time = ${statementMs}`],
  };
  const statementLimits = dialect === 'mysql' ? limits.mysql : limits.mariadb;
  const lockLimit = `set session innodb_lock_wait_timeout = ${toSeconds(statementMs)}`;
  return [...sessionSql, lockLimit, ...statementLimits];
}

/**
 * Builds the statements that run before a transaction, and after its `commit` or `rollback`. The first turns
 * autocommit off: when the server rolls a transaction back because of a deadlock, statements that were already
 * pipelined would otherwise each be committed. On MySQL, which limits only idle connections and not idle
 * transactions, it also sets `wait_timeout`: otherwise the transaction of a process whose host has vanished
 * would keep its locks for eight hours.
 */
export function buildTransactionSql({ dialect, connectMs, statementMs }: DatabaseServerOptions) {
  if (dialect !== 'mysql') return { before: 'set autocommit = 0', after: 'set autocommit = 1' };
  const idleSeconds = toSeconds(connectMs + statementMs);
  return {
    before: `set autocommit = 0, session wait_timeout = ${idleSeconds}`,
    after: 'set autocommit = 1, session wait_timeout = default',
  };
}

/** Builds the query whose row `assertSessionState` checks. */
export function buildSessionQuery(dialect: DatabaseServerOptions['dialect']): string {
  const prefix = dialect === 'mysql' ? 'transaction' : 'tx';
  const names = [...variables.map(([name]) => name), ...charsetVariables];
  const columns = names.map((name) => `@@session.${name} as ${name}`);
  columns.push(`@@session.${prefix}_isolation as isolation`);
  columns.push(`@@session.${prefix}_read_only as is_read_only`);
  return `select ${columns.join(', ')}`;
}

/**
 * Throws when the state of a session differs from the state that Herald has set, for example behind a proxy
 * that distributes statements over several connections. The message names the variables. Also throws when
 * transactions are read-only by default. Herald does not override that default, because it can protect an old
 * primary after a failover.
 */
export function assertSessionState(state: object | undefined): void {
  const row = state as Readonly<Record<string, unknown>> | undefined;
  if (Number(row?.['is_read_only']) === 1) {
    const cure = 'set global transaction_read_only = 0 (MariaDB before 11.1: tx_read_only)';
    throw new Error(`Cannot open database: its transactions are read-only by default: ${cure}`);
  }
  const expected: Readonly<Record<string, string>> = {
    ...Object.fromEntries(variables.map(([name, , read]) => [name, read])),
    ...Object.fromEntries(charsetVariables.map((name) => [name, 'utf8mb4'])),
    isolation: 'READ-COMMITTED',
  };
  const wrong = Object.entries(expected).filter(([name, value]) => String(row?.[name]) !== value);
  if (wrong.length === 0) return;
  const states = wrong.map(([name, value]) => `${name} is ${row?.[name]}, not ${value}`);
  const reason = `a connection does not keep its session state (is there a proxy?)`;
  throw new Error(`Cannot open database: ${reason}: ${states.join('; ')}`);
}

function toSeconds(ms: number): number {
  return Math.ceil(ms / 1000);
}
