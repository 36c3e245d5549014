/**
 * The part of `node:sqlite` that is used here. `@photostructure/sqlite` has the same interface, but its
 * `close` releases the file only after the prepared statements are garbage-collected. Therefore nothing may
 * depend on `close` to release a lock or to checkpoint the write-ahead log.
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
 * Loads the SQLite driver: `node:sqlite` on Node 22.13 or later, otherwise `@photostructure/sqlite`, which
 * has the same interface.
 *
 * Rejects when neither driver is available. The message lists the alternatives.
 */
export async function loadSqlite(): Promise<SqliteDriver> {
  const { DatabaseSync } = (await importBuiltIn()) ?? (await importPackage());
  return DatabaseSync;
}

async function importBuiltIn(): Promise<SqliteModule | undefined> {
  const { emitWarning } = process;
  // Hides the warning of Node 22 to 24.14 that SQLite is experimental: operators cannot act on it.
  process.emitWarning = ((warning: string | Error, ...rest: never[]) => {
    if (!String(warning).includes('SQLite')) emitWarning.call(process, warning, ...rest);
  }) as typeof emitWarning;
  try {
    const name: string = 'node:sqlite'; // Typed as `string`, because `@types/node` 20 does not declare this module.
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
    // `--no-save` leaves package.json unchanged. `--save-prod`, because package.json lists the package as a
    // development dependency, which `--omit=dev` alone would not install.
    const install = 'npm i --no-save --omit=dev --save-prod @photostructure/sqlite@1';
    const alternatives = `use Node 22.13 or later, run \`${install}\`, or set DB_DIALECT=postgres`;
    throw new Error(`Cannot load the embedded database: ${alternatives}`, { cause });
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
