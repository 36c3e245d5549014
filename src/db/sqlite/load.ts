/**
 * What we use of `node:sqlite`; `@photostructure/sqlite` is the same, but for one thing: a closed
 * connection of the package lives on until the garbage collector has seen the last of its prepared
 * statements. So nothing may depend on `close` to give up a lock or to fold the log.
 */
export interface SqliteConnection {
  exec(text: string): void;
  prepare(text: string): SqliteStatement;
  close(): void;
}

export interface SqliteStatement {
  all(...values: unknown[]): unknown[];
  run(...values: unknown[]): { readonly changes: number | bigint };
}

export type SqliteDriver = new (
  file: string,
  options?: { readonly readOnly?: boolean },
) => SqliteConnection;

interface SqliteModule {
  readonly DatabaseSync: SqliteDriver;
}

/**
 * The embedded engine: Node's own from 22.13 on, before that the package with the same interface.
 *
 * Rejects with the ways out when there is neither.
 */
export async function loadSqlite(): Promise<SqliteDriver> {
  const { DatabaseSync } = (await importBuiltIn()) ?? (await importPackage());
  return DatabaseSync;
}

async function importBuiltIn(): Promise<SqliteModule | undefined> {
  const { emitWarning } = process;
  // Node 22 to 24.14 call it experimental; nobody who runs Herald can do anything about that.
  process.emitWarning = ((warning: string | Error, ...rest: never[]) => {
    if (!String(warning).includes('SQLite')) emitWarning.call(process, warning, ...rest);
  }) as typeof emitWarning;
  try {
    const name: string = 'node:sqlite'; // Not a literal: the types of Node 20 do not know it.
    return (await import(name)) as SqliteModule;
  } catch (cause) {
    if (!hasCode(cause, 'ERR_UNKNOWN_BUILTIN_MODULE')) throw cause;
    return undefined;
  } finally {
    process.emitWarning = emitWarning;
  }
}

async function importPackage(): Promise<SqliteModule> {
  try {
    return await import('@photostructure/sqlite');
  } catch (cause) {
    // Present but broken must not read as missing.
    if (!hasCode(cause, 'ERR_MODULE_NOT_FOUND')) throw cause;
    const install = 'npm i --no-save --omit=dev --save-prod @photostructure/sqlite@1';
    const ways = `Node 22.13 or later, or ${install}, or DB_DIALECT=postgres`;
    throw new Error(`Cannot load the embedded database: it needs ${ways}`, { cause });
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
