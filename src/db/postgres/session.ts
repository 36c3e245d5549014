import { randomBytes } from 'node:crypto';
import type { DatabaseServerOptions } from '../options.js';

/**
 * Session settings that Herald's statements depend on. They are sent as startup parameters, which take
 * precedence over the settings of a role or a database. The package sets `client_encoding` itself.
 */
const sessionSettings = {
  default_transaction_isolation: 'read committed',
  // A text, because the package leaves out a number 0.
  idle_session_timeout: '0',
  // Only this process can set it, so a session that has it received the other settings, too.
  'herald.process': randomBytes(8).toString('hex'),
  standard_conforming_strings: 'on',
  TimeZone: 'UTC',
} as const;

export interface SessionOptions {
  /** Whether to set time limits of statements, locks and idle transactions. */
  readonly hasTimeouts: boolean;
}

/** Returns the startup parameters of a connection. A transaction pooler refuses all but the name. */
export function buildStartupParameters(
  { connectMs, statementMs, prepare }: DatabaseServerOptions,
  { hasTimeouts }: SessionOptions,
): Record<string, string | number> {
  const limits = {
    statement_timeout: statementMs,
    lock_timeout: statementMs,
    idle_in_transaction_session_timeout: connectMs + statementMs,
  };
  return {
    application_name: 'herald',
    ...(prepare && sessionSettings),
    ...(prepare && hasTimeouts && limits),
  };
}

/** The query whose row `assertSessionState` checks. */
export const sessionQuery = `select
  current_setting('server_encoding') as server_encoding,
  current_setting('client_encoding') as client_encoding,
  current_setting('default_transaction_isolation') as default_transaction_isolation,
  current_setting('standard_conforming_strings') as standard_conforming_strings,
  current_setting('herald.process', true) as process,
  current_schema() as schema,
  current_setting('synchronous_commit') as synchronous_commit,
  current_setting('transaction_read_only') as transaction_read_only,
  (select setting from pg_settings where name = 'transaction_timeout') as transaction_timeout_ms`;

/**
 * Throws when the database cannot store all texts, or when a session has another state than the one that
 * Herald needs. The message names the setting, and says what to do. Herald does not override
 * `default_transaction_read_only`, because it can protect an old primary after a failover.
 */
export function assertSessionState(
  state: object | undefined,
  { database, prepare, connectMs, statementMs }: DatabaseServerOptions,
): void {
  const row = state as Readonly<Record<string, unknown>> | undefined;
  const fail = (reason: string) => new Error(`Cannot open database: ${reason}`);
  if (row?.['server_encoding'] !== 'UTF8') {
    const cure = `create it again with "encoding 'UTF8' template template0"`;
    throw fail(`${database} has the encoding ${row?.['server_encoding']}, not UTF8: ${cure}`);
  }
  if (prepare && row['process'] !== sessionSettings['herald.process']) {
    throw fail('a pooler in between ignores session settings: set DB_PREPARE=false');
  }
  if (row['schema'] === null) {
    throw fail(`search_path names no schema of ${database}: alter role … set search_path = public`);
  }
  if (row['transaction_read_only'] === 'on') {
    const cure =
      'set DB_HOST to the primary, or alter role … set default_transaction_read_only = off';
    throw fail(`its transactions are read-only: ${cure}`);
  }
  if (row['synchronous_commit'] === 'off') {
    const loss = 'a crash of the database server would lose acknowledged events';
    throw fail(`synchronous_commit is off, so ${loss}: alter role … set synchronous_commit = on`);
  }
  const deadlineMs = connectMs + statementMs;
  const transactionMs = Number(row['transaction_timeout_ms'] ?? 0); // PostgreSQL 17 and later.
  if (transactionMs !== 0 && transactionMs < deadlineMs) {
    const cure = `alter role … set transaction_timeout = ${deadlineMs}`;
    throw fail(`transaction_timeout is below DB_CONNECT_TIMEOUT + DB_STATEMENT_TIMEOUT: ${cure}`);
  }
  const expected: Readonly<Record<string, string>> = {
    client_encoding: 'UTF8',
    default_transaction_isolation: 'read committed',
    standard_conforming_strings: 'on',
  };
  for (const [name, value] of Object.entries(expected)) {
    if (row[name] === value) continue;
    const cure = `alter role … set ${name} = '${value}'`;
    throw fail(`${name} is "${row[name]}", not "${value}": ${cure}`);
  }
}
