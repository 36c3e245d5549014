import { mariadbMigrations } from './mariadb.js';
import type { Migration } from './migration.js';

/**
 * The migrations of MySQL, so far identical to those of MariaDB. A statement that MySQL lacks, such
 * as `create index if not exists`, needs a separate migration here under the same number.
 */
export const mysqlMigrations: readonly Migration[] = [...mariadbMigrations];
