export type Dialect = 'sqlite' | 'postgres' | 'mariadb' | 'mysql';

/** What can be bound and read. Whole numbers up to 2^53 are exact; bytes are at least one. */
export type Value = string | number | null | Uint8Array;

/** Text and values apart; made by `sql`, `list` and `tuples`. Between two texts stands a value. */
export interface Sql {
  readonly texts: readonly string[];
  readonly values: readonly Value[];
  /** Made by `list` or `tuples`: the text grows with the values, so few of them are kept prepared. */
  readonly hasVariableArity?: true;
}

/**
 * One database, whatever its dialect. Statements are portable: no `returning`, no `||`, times as
 * epoch ms; compare-and-swap is an update with the old state in `where`.
 *
 * Every method may reject with `service_unavailable`: connection lost, deadline over, queue full,
 * disk full. If it was a write, its outcome may be unknown then.
 */
export interface Database {
  readonly dialect: Dialect;

  /** Only where the database can wake its clients: PostgreSQL, but not through every pooler. */
  readonly notifier?: Notifier | undefined;

  /** Rows are plain objects. Outside a transaction it must not write. */
  query<Row extends object>(statement: Sql): Promise<Row[]>;

  /** How many rows matched, also when their values stay the same. Rejects with `UniqueViolation`. */
  execute(statement: Sql): Promise<number>;

  /**
   * Commits what `work` did, or rolls back and rejects as `work` did. Isolation: read committed.
   *
   * A statement that fails dooms the transaction, in every dialect: it can only roll back. On a
   * deadlock `work` runs again, at most 3 times in all, so it must be repeatable. It must be quick,
   * too: the embedded database has one writer, which waits for it. Nesting is refused.
   */
  transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result>;

  /**
   * Commits all statements, asking the database once; or none of them, when one matches no row:
   * then false. Rejects with `UniqueViolation`. Only where one process has the database to itself and
   * knows beforehand what it will write: the embedded one.
   */
  batch?(statements: readonly Sql[]): Promise<boolean>;

  /** Waits for what is under way; what is asked later is refused. Twice is fine. */
  close(): Promise<void>;
}

/** How processes on one database tell each other that there is something new, and not what. */
export interface Notifier {
  /** A part of a transaction: with its commit all others that listen are woken, once. */
  notify(tx: Database): Promise<void>;

  /**
   * Calls `wake` after announcements of others, and whenever some may have been missed: when it
   * begins to listen, and when it does so again because the connection was lost. Never throws.
   */
  subscribe(onNotify: () => void): Subscription;
}

export interface Subscription {
  /** False while the connection is made: until then announcements are not heard. */
  readonly isActive: boolean;
  /** Twice is fine. */
  close(): Promise<void>;
}

/** A row with the same unique key is there already. */
export class UniqueViolation extends Error {
  override readonly name = 'UniqueViolation';
}

/** A statement or a part of one; parts nest. A value never becomes text. */
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

/** `a, b, c`, as in `where id in (${list(ids)})`. Throws for none: SQL has no empty list. */
export function list(values: readonly Value[]): Sql {
  if (values.length === 0) throw new TypeError('Cannot make an SQL list: it has no values');
  const between = values.slice(1).map(() => ', ');
  return {
    texts: ['', ...between, ''],
    values: values.map(requireBindable),
    hasVariableArity: true,
  };
}

/** `(a, b), (c, d)`, as in `insert into t (x, y) values ${tuples(rows)}`. Rows are of one length. */
export function tuples(rows: readonly (readonly Value[])[]): Sql {
  const values = flattenRows(rows);
  const width = rows[0]?.length ?? 0;
  const between = values.map((_, index) => (index % width === 0 ? '), (' : ', '));
  return { texts: ['(', ...between.slice(1), ')'], values, hasVariableArity: true };
}

/** Of rows that are all as long as the first, one after the other. */
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
const insertTextCache = new WeakMap<readonly string[], Map<number, readonly string[]>>();

/**
 * `insert into t (x, y) values (a, b), (c, d)`, as in ``inserts(sql`insert into t (x, y) values `, rows)``;
 * none for no rows. A statement has 100 rows at most, so that there are few different ones: they are
 * put together once, and stay prepared. `into` is a template without parts.
 */
export function inserts(prefix: Sql, rows: readonly (readonly Value[])[]): Sql[] {
  const textsByCount = insertTextCache.get(prefix.texts) ?? new Map<number, readonly string[]>();
  insertTextCache.set(prefix.texts, textsByCount);
  const statements: Sql[] = [];
  for (let start = 0; start < rows.length; start += insertRowsMax) {
    const batch = rows.slice(start, start + insertRowsMax);
    const texts = textsByCount.get(batch.length) ?? sql`${prefix}${tuples(batch)}`.texts;
    textsByCount.set(batch.length, texts);
    statements.push({ texts, values: flattenRows(batch), hasVariableArity: true });
  }
  return statements;
}

/** Stands in a statement's text for the value at a position, which counts from 1. */
export type Placeholder = (position: number) => string;

/** `?`, for SQLite, MariaDB and MySQL. */
export const questionMark: Placeholder = () => '?';

/** `$1`, for PostgreSQL. */
export const dollar: Placeholder = (position) => `$${position}`;

const renderCache = new WeakMap<Placeholder, WeakMap<readonly string[], string>>();

/**
 * Returns the text for a driver. A template without parts is rendered once for each placeholder.
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

/** What slipped past the types is refused here: drivers differ in what they make of it. */
function requireBindable(value: Value | Sql): Value {
  const isGood =
    typeof value === 'string' ||
    (typeof value === 'number' && Number.isFinite(value)) ||
    value === null ||
    // No empty ones: the embedded engine of Node 22 would make them null.
    (value instanceof Uint8Array && value.byteLength > 0);
  if (isGood) return value;
  const what = typeof value === 'number' ? String(value) : typeof value;
  throw new TypeError(`Cannot bind ${what}: a value is a string, a number, null or some bytes`);
}
