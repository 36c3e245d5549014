import {
  type Database,
  type Dialect,
  questionMark,
  render,
  type Sql,
} from '../../../src/db/database.js';

/** A table that a check constraint limits to one row, so that a full scan of it is cheap. */
const singleRowTable = 'log_head';

const scanFinders: Readonly<Record<Dialect, (db: Database, statement: Sql) => Promise<string[]>>> =
  {
    sqlite: findSqliteScans,
    postgres: findPostgresScans,
    mariadb: findMariadbScans,
    mysql: findMariadbScans,
  };

/**
 * Returns the steps of a statement's plan that read a whole table or a whole index, in the database's
 * own words. Does not run the statement.
 */
export function findFullScans(db: Database, statement: Sql): Promise<string[]> {
  return scanFinders[db.dialect](db, statement);
}

/** Returns the text of a statement; a list of any length appears in it as one value. */
export function normalizeText(statement: Sql): string {
  const text = render(statement, questionMark).replaceAll(/\s+/g, ' ').trim();
  return text.replaceAll(/\((\?, )+\?\)/g, '(?)');
}

/** Updates the planner's statistics of these tables. */
export async function analyze(db: Database, tables: readonly string[]): Promise<void> {
  for (const table of tables) {
    const isMysqlFamily = db.dialect === 'mariadb' || db.dialect === 'mysql';
    const statement = { texts: [`analyze ${isMysqlFamily ? 'table ' : ''}${table}`], values: [] };
    // On MariaDB and MySQL the statement returns rows.
    await (isMysqlFamily ? db.query(statement) : db.execute(statement));
  }
}

/** Finds steps with `SCAN`, which SQLite also prints for a whole index. Spec: sqlite.org/eqp.html. */
async function findSqliteScans(db: Database, statement: Sql): Promise<string[]> {
  const rows = await db.query<{ detail: string }>(prependText('explain query plan ', statement));
  // The table with one row, and the names of subqueries, which are not tables.
  const harmless = /^SCAN (log_head|found|visible|page|range_\d+|\(subquery-\d+\)|CONSTANT ROW)/;
  return rows
    .map(({ detail }) => detail)
    .filter((detail) => detail.startsWith('SCAN') && !harmless.test(detail));
}

interface Node {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Index Cond'?: string;
  readonly Plans?: readonly Node[];
}

async function findPostgresScans(db: Database, statement: Sql): Promise<string[]> {
  const [row] = await db.query<{ 'QUERY PLAN': [{ Plan: Node }] }>(
    prependText('explain (format json) ', statement),
  );
  if (row === undefined) throw new Error('Cannot explain statement: no plan was returned');
  return flattenNodes(row['QUERY PLAN'][0].Plan)
    .filter((node) => node['Relation Name'] !== singleRowTable)
    .filter((node) => {
      if (node['Node Type'] === 'Seq Scan') return true;
      return /^Index (Only )?Scan/.test(node['Node Type']) && node['Index Cond'] === undefined;
    })
    .map((node) => `${node['Node Type']} on ${node['Relation Name']}`);
}

function flattenNodes(node: Node): Node[] {
  return [node, ...(node.Plans ?? []).flatMap(flattenNodes)];
}

/** Finds steps of type `ALL` (whole table) or `index` (whole index). A table name in `<>` is a derived table. */
async function findMariadbScans(db: Database, statement: Sql): Promise<string[]> {
  interface Row {
    readonly table: string | null;
    readonly type: string | null;
    readonly key: string | null;
  }
  // The default format of newer MySQL versions is a tree.
  const explain = db.dialect === 'mysql' ? 'explain format = traditional ' : 'explain ';
  const rows = await db.query<Row>(prependText(explain, statement));
  return rows
    .filter(({ table, type }) => {
      const isTable = table !== null && !table.startsWith('<') && table !== singleRowTable;
      return isTable && (type === 'ALL' || type === 'index');
    })
    .map(({ table, type, key }) => `${type} on ${table}${key === null ? '' : ` by ${key}`}`);
}

function prependText(prefix: string, { texts, ...rest }: Sql): Sql {
  return { ...rest, texts: [prefix + (texts[0] ?? ''), ...texts.slice(1)] };
}
