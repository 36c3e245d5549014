import type { Dialect } from '../database.js';
import { mariadbMigrations } from './mariadb.js';
import type { Migration } from './migration.js';
import { mysqlMigrations } from './mysql.js';
import { postgresMigrations } from './postgres.js';
import { sqliteMigrations } from './sqlite.js';

export const migrationsByDialect: Readonly<Record<Dialect, readonly Migration[]>> = {
  sqlite: sqliteMigrations,
  postgres: postgresMigrations,
  mariadb: mariadbMigrations,
  mysql: mysqlMigrations,
};

/** All tables of the migrations in drop order: a referencing table before the referenced one. */
export const tables = [
  'token_topics',
  'stream_tokens',
  'sessions',
  'users',
  'api_keys',
  'event_audiences',
  'trimmed_audiences',
  'events',
  'log_head',
  'idempotency',
  'processes',
  'disconnects',
  'open_streams',
  'topic_members',
  'topic_losses',
  'topic_revocations',
  'trimmed_topics',
] as const;

/** Tables of earlier migrations, which `sync --reset` drops, too. */
export const formerTables = ['stream_takeovers'] as const;
