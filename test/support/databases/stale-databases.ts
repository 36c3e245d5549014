import { readFileSync } from 'node:fs';
import { findServer, type ServerDialect } from './test-server.js';

/** Statements that list the test databases to which no client is connected. */
const listStatements: Readonly<Record<'postgres' | 'mariadb', string>> = {
  postgres: `select datname as name from pg_database
    where datname like 'herald_test_%'
      and not exists (select 1 from pg_stat_activity where pg_stat_activity.datname = pg_database.datname)`,
  mariadb: `select schema_name as name from information_schema.schemata
    where schema_name like 'herald_test_%'
      and not exists (select 1 from information_schema.processlist where db = schema_name)`,
};

/**
 * Drops the test databases of processes that have ended, and returns their names. `findServer` puts the
 * process id into the name. Keeps a database to which a client is connected, because its process may run in
 * another container.
 */
export async function dropStaleDatabases(dialect: ServerDialect): Promise<string[]> {
  const server = await findServer(dialect);
  if (typeof server === 'string') return [];
  const listStatement = listStatements[dialect === 'postgres' ? 'postgres' : 'mariadb'];
  const rows = (await server.administer(listStatement)) as readonly { readonly name: string }[];
  const names = rows
    .map(({ name }) => name)
    .filter((name) => {
      const pid = /^herald_test_(\d+)_\d+$/.exec(name)?.[1];
      return pid !== undefined && !isRunning(Number(pid));
    });
  for (const name of names) await server.administer(`drop database if exists ${name}`);
  return names;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
  try {
    // A zombie has ended; its parent has not yet asked for its exit code.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat[stat.lastIndexOf(')') + 2] !== 'Z';
  } catch {
    return true; // There is no /proc, or the process has ended meanwhile.
  }
}
