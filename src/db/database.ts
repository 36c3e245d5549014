export type Dialect = 'sqlite' | 'postgres' | 'mariadb' | 'mysql';

/** A value to bind or read. Integers are exact up to 2^53; a byte array must not be empty. */
export type Value = string | number | null | Uint8Array;

/**
 * A statement or a part of one, with text and values kept apart: each value stands between two
 * adjacent texts. Created by `sql`, `list`, `tuples` and `inserts`.
 */
export interface Sql {
  readonly texts: readonly string[];
  readonly values: readonly Value[];
  /** Whether the text depends on the number of values. Fewer such statements are kept prepared. */
  readonly hasVariableArity?: true;
}

/**
 * A database of any dialect. Statements are portable: no `returning`, no `||`, times as epoch ms;
 * compare-and-swap is an update with the old state in `where`.
 *
 * Every method may reject with `service_unavailable`: connection lost, deadline exceeded, queue
 * full, disk full. The outcome of a write may then be unknown.
 */
export interface Database {
  readonly dialect: Dialect;

  /** Set only for PostgreSQL without a transaction pooler. */
  readonly notifier?: Notifier | undefined;

  /**
   * The same database for work that has to go on while requests are refused because too many statements
   * are waiting: polling the event log, heartbeats, ending sessions, deleting expired rows. Such work must
   * run a bounded number of statements at a time. Undefined for SQLite, which has no shares.
   */
  readonly background?: Database | undefined;

  /** Returns rows as plain objects. Outside a transaction the statement must not write. */
  query<Row extends object>(statement: Sql): Promise<Row[]>;

  /**
   * Returns the number of matched rows, unchanged ones included. Rejects with `UniqueViolation` and
   * `ReferenceViolation`.
   */
  execute(statement: Sql): Promise<number>;

  /**
   * Commits the statements of `work`, or rolls back and rejects with the error of `work`.
   * Isolation: read committed.
   *
   * In every dialect a failed statement aborts the transaction, which is then rolled back. After a
   * conflict with another transaction, such as a deadlock, `work` runs again, at most 3 times in all, so
   * it must be repeatable. `work` must be fast, because it blocks the only writer of SQLite. Rejects
   * when nested.
   */
  transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result>;

  /**
   * Commits all statements in one round trip and returns true. If any statement matches no row, commits no
   * statement and returns false. Rejects with `UniqueViolation`. Exists only for SQLite, where one process
   * owns the database and therefore knows in advance what to write.
   */
  batch?(statements: readonly Sql[]): Promise<boolean>;

  /** Size of the write-ahead log after the last commit. Exists only for SQLite. */
  readonly walBytes?: number;

  /** Waits for running statements and refuses new ones. Idempotent. */
  close(): Promise<void>;
}

/**
 * Notifies the processes on one database that something has changed. A notification does not contain the
 * change.
 */
export interface Notifier {
  /** Notifies all other subscribers, once, when the transaction `tx` commits. */
  notify(tx: Database): Promise<void>;

  /**
   * Calls `onNotify` after a notification of another process, and after each (re)connection,
   * because earlier notifications may have been missed. Never throws.
   */
  subscribe(onNotify: () => void): Subscription;
}

export interface Subscription {
  /** False while connecting: notifications are not received then. */
  readonly isActive: boolean;
  /** Idempotent. */
  close(): Promise<void>;
}

/** Thrown when a row with the same unique key exists. */
export class UniqueViolation extends Error {
  override readonly name = 'UniqueViolation';
}

/** Thrown when a row refers to a row that does not exist, for example because it was deleted meanwhile. */
export class ReferenceViolation extends Error {
  override readonly name = 'ReferenceViolation';
}

/** Creates a statement or a part of one; parts nest. A value never becomes part of the text. */
export function sql(strings: TemplateStringsArray, ...parts: readonly (Value | Sql)[]): Sql {
  if (!parts.some(isSql)) return { texts: strings, values: parts.map(requireBindable) };
  const texts = [strings[0] ?? ''];
  const values: Value[] = [];
  const extend = (text: string) => texts.push((texts.pop() ?? '') + text);
  for (const [index, part] of parts.entries()) {
    if (isSql(part)) {
      extend(part.texts[0] ?? '');
      texts.push(...part.texts.slice(1));
      values.push(...part.values);
      extend(strings[index + 1] ?? '');
    } else {
      values.push(requireBindable(part));
      texts.push(strings[index + 1] ?? '');
    }
  }
  const hasVariableArity = parts.some((part) => isSql(part) && part.hasVariableArity === true);
  return hasVariableArity ? { texts, values, hasVariableArity } : { texts, values };
}

/**
 * Creates a list `a, b, c`, as in `where id in (${list(ids)})`. Throws without values, because SQL
 * has no empty list.
 */
export function list(values: readonly Value[]): Sql {
  if (values.length === 0) throw new TypeError('Cannot make an SQL list: it has no values');
  const separators = values.slice(1).map(() => ', ');
  return {
    texts: ['', ...separators, ''],
    values: values.map(requireBindable),
    hasVariableArity: true,
  };
}

/**
 * Creates tuples `(a, b), (c, d)`, as in `insert into t (x, y) values ${tuples(rows)}`. Throws
 * without values and for rows of different lengths.
 */
export function tuples(rows: readonly (readonly Value[])[]): Sql {
  const values = flattenRows(rows);
  const width = rows[0]?.length ?? 0;
  const separators = values.map((_, index) => (index % width === 0 ? '), (' : ', '));
  return { texts: ['(', ...separators.slice(1), ')'], values, hasVariableArity: true };
}

/** Concatenates the rows. Throws unless all rows have the same length, above 0. */
function flattenRows(rows: readonly (readonly Value[])[]): Value[] {
  const width = rows[0]?.length ?? 0;
  if (width === 0) throw new TypeError('Cannot make SQL tuples: there are no values');
  const values: Value[] = [];
  for (const row of rows) {
    if (row.length !== width) throw new TypeError('Cannot make SQL tuples: lengths differ');
    for (const value of row) values.push(requireBindable(value));
  }
  return values;
}

const insertRowsMax = 100;
/** Escaping at most doubles this, so a statement fits a `max_allowed_packet` of 1 MiB (MariaDB, MySQL). */
const insertBytesMax = 256 * 1024;
const insertTextCache = new WeakMap<readonly string[], Map<number, readonly string[]>>();

/**
 * Creates statements that insert `rows`, as in ``inserts(sql`insert into t (x, y) values `, rows)``. Each
 * statement has at most 100 rows and 256 KiB, or one larger row. So large inserts use few different texts,
 * which are built once and stay prepared. Without rows there are no statements. `prefix` must be a template
 * without parts.
 */
export function inserts(prefix: Sql, rows: readonly (readonly Value[])[]): Sql[] {
  const textsByCount = insertTextCache.get(prefix.texts) ?? new Map<number, readonly string[]>();
  insertTextCache.set(prefix.texts, textsByCount);
  const statements: Sql[] = [];
  for (let start = 0; start < rows.length; ) {
    const batch = takeBatch(rows, start);
    start += batch.length;
    const texts = textsByCount.get(batch.length) ?? sql`${prefix}${tuples(batch)}`.texts;
    textsByCount.set(batch.length, texts);
    statements.push({ texts, values: flattenRows(batch), hasVariableArity: true });
  }
  return statements;
}

function takeBatch(
  rows: readonly (readonly Value[])[],
  start: number,
): readonly (readonly Value[])[] {
  const batch = rows.slice(start, start + insertRowsMax);
  let bytes = 0;
  const count = batch.findIndex((row, index) => {
    bytes += getBytes(row);
    return index > 0 && bytes > insertBytesMax;
  });
  return count < 0 ? batch : batch.slice(0, count);
}

function getBytes(row: readonly Value[]): number {
  return row.reduce<number>((sum, value) => {
    if (typeof value === 'string') return sum + Buffer.byteLength(value);
    return value instanceof Uint8Array ? sum + value.byteLength : sum;
  }, 0);
}

/** Returns the placeholder for the value at a position, counted from 1. */
export type Placeholder = (position: number) => string;

/** Returns `?`, for SQLite, MariaDB and MySQL. */
export const questionMark: Placeholder = () => '?';

/** Returns `$1`, `$2` and so on, for PostgreSQL. */
export const dollar: Placeholder = (position) => `$${position}`;

const renderCache = new WeakMap<Placeholder, WeakMap<readonly string[], string>>();

/**
 * Renders a statement as text for a driver. The text of a template without parts is built once per
 * placeholder style.
 */
export function render(statement: Sql, placeholder: Placeholder): string {
  const { texts } = statement;
  let textCache = renderCache.get(placeholder);
  if (textCache === undefined) {
    textCache = new WeakMap();
    renderCache.set(placeholder, textCache);
  }
  const cachedText = textCache.get(texts);
  if (cachedText !== undefined) return cachedText;
  let text = texts[0] ?? '';
  for (let position = 1; position < texts.length; position++) {
    text += placeholder(position) + texts[position];
  }
  textCache.set(texts, text);
  return text;
}

function isSql(part: Value | Sql): part is Sql {
  return typeof part === 'object' && part !== null && 'texts' in part;
}

/** Throws for values that bypassed the types, because drivers convert them differently. */
function requireBindable(value: Value | Sql): Value {
  const isBindable =
    typeof value === 'string' ||
    (typeof value === 'number' && Number.isFinite(value)) ||
    value === null ||
    // The SQLite of Node 22 would store an empty array as null.
    (value instanceof Uint8Array && value.byteLength > 0);
  if (isBindable) return value;
  const description = typeof value === 'number' ? String(value) : typeof value;
  throw new TypeError(
    `Cannot bind ${description}: a value is a string, a number, null or some bytes`,
  );
}
