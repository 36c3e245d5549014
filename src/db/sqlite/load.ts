/**
 * The part of `node:sqlite` that is used here. `@photostructure/sqlite` is identical, except that a
 * closed connection stays open until its prepared statements are garbage-collected. Therefore
 * nothing may depend on `close` to release a lock or to checkpoint the write-ahead log.
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
 * Loads the SQLite driver: that of Node, from Node 22.13 on, or else the package with the same interface.
 *
 * Rejects when neither is available; the message lists the alternatives.
 */
export async function loadSqlite(): Promise<SqliteDriver> {
  const { DatabaseSync } = (await importBuiltIn()) ?? (await importPackage());
  return DatabaseSync;
}

async function importBuiltIn(): Promise<SqliteModule | undefined> {
  const { emitWarning } = process;
  // Node 22 to 24.14 warn that SQLite is experimental, which an operator can do nothing about.
  process.emitWarning = ((warning: string | Error, ...rest: never[]) => {
    if (!String(warning).includes('SQLite')) emitWarning.call(process, warning, ...rest);
  }) as typeof emitWarning;
  try {
    const name: string = 'node:sqlite'; // Not a literal type: the types of Node 20 lack it.
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
    // A broken package must not be reported as missing.
    if (!hasCode(cause, 'ERR_MODULE_NOT_FOUND')) throw cause;
    const install = 'npm i --no-save --omit=dev --save-prod @photostructure/sqlite@1';
    const alternatives = `Node 22.13 or later, or ${install}, or DB_DIALECT=postgres`;
    throw new Error(`Cannot load the embedded database: it needs ${alternatives}`, { cause });
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
