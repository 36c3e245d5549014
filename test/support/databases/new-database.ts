import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Dialect } from '../../../src/db/database.js';
import type { DatabaseOptions } from '../../../src/db/options.js';
import { recordedLog } from '../recording/record.js';
import { findServer } from './test-server.js';

/** The name and options of a database that does not exist yet. */
export interface NewDatabase {
  readonly options: DatabaseOptions;
  drop(): Promise<void>;
}

/**
 * Returns an embedded database in a new folder, or one on the dialect's database server. Throws when there
 * is no server.
 */
export async function newDatabase(dialect: Dialect): Promise<NewDatabase> {
  if (dialect === 'sqlite') {
    const folder = mkdtempSync(join(tmpdir(), 'herald-'));
    return {
      options: { dialect, file: join(folder, 'test.db'), log: recordedLog },
      drop: async () => rmSync(folder, { recursive: true, force: true }),
    };
  }
  const server = await findServer(dialect);
  if (typeof server === 'string') throw new Error(server);
  return server;
}

/** Returns the reason to skip tests of a dialect; false when this machine has a database of this dialect. */
export async function skipFor(dialect: Dialect): Promise<string | false> {
  const server = dialect === 'sqlite' ? undefined : await findServer(dialect);
  return typeof server === 'string' ? server : false;
}
