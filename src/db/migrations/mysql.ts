import { mariadbMigrations } from './mariadb.js';
import type { Migration } from './migration.js';

/**
 * So far word for word as on MariaDB. What is not, such as `create index if not exists`, which MySQL
 * does not know, is a migration of its own here, under the same number.
 */
export const mysqlMigrations: readonly Migration[] = [...mariadbMigrations];
