import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, test } from 'node:test';
import { describeDatabase } from '../../../test/support/databases/database-contract.js';
import { until } from '../../../test/support/until.js';
import { withDeadline } from '../../../test/support/with-deadline.js';
import { silentLogger } from '../../logging/logger.js';
import { type Database, sql, tuples, UniqueViolation } from '../database.js';
import { openDatabase } from '../open.js';
import { loadSqlite } from './load.js';
import { SqliteDatabase } from './sqlite.js';
import { DatabaseThread } from './thread.js';

const folder = mkdtempSync(join(tmpdir(), 'herald-'));
after(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
const newFile = (): string => join(folder, `${++files}.db`);
const open = (file = newFile(), options: { deadlineMs?: number } = {}) =>
  SqliteDatabase.open({ dialect: 'sqlite', file, lockMs: 0, log: silentLogger, ...options });

async function withNotes(work: (db: SqliteDatabase, file: string) => Promise<void>) {
  const file = newFile();
  const db = await open(file);
  try {
    await db.execute(sql`create table notes (id integer primary key, text text) strict`);
    await work(db, file);
  } finally {
    await db.close();
  }
}

/**
 * Creates a file with the table in advance, so that a short deadline does not affect its creation.
 */
async function createFileWithNotes(): Promise<string> {
  const file = newFile();
  const db = await open(file);
  await db.execute(sql`create table notes (id integer primary key, text text) strict`);
  await db.close();
  return file;
}

const add = (id: number) => sql`insert into notes (id, text) values (${id}, ${'note'})`;
const count = async (db: Database): Promise<number> => {
  const [row] = await db.query<{ count: number }>(sql`select count(*) as count from notes`);
  return row?.count ?? 0;
};

/** Retries with new ids until a write succeeds in time. Returns its id. */
async function writeOne(db: Database, from: number): Promise<number> {
  let id = from - 1;
  await until(async () => {
    id += 1; // A refused row may have been written nevertheless.
    return (await db.execute(add(id)).catch(() => 0)) === 1;
  });
  return id;
}

describeDatabase('sqlite', () => open());

describe('group commit of the embedded database', () => {
  test('the embedded database groups concurrent writes into few commits', () =>
    withNotes(async (db) => {
      const before = db.commits;

      await Promise.all(Array.from({ length: 1000 }, (_, id) => db.execute(add(id))));

      const commits = db.commits - before;
      assert.ok(commits <= 10, `${commits} commits`); // Groups of 256, of which the first is short.
      assert.equal(await count(db), 1000);
    }));

  test('the embedded database commits a single write on its own', () =>
    withNotes(async (db) => {
      const before = db.commits;

      for (let id = 0; id < 5; id++) await db.execute(add(id));

      assert.equal(db.commits - before, 5);
    }));

  test('a failing write in a group fails alone, at any position', () =>
    withNotes(async (db) => {
      const before = db.commits;
      const ids = [1, 1, 2, 3, 3, 4, 1];

      const outcomes = await Promise.allSettled(ids.map((id) => db.execute(add(id))));

      const failed = outcomes.map(({ status }) => status === 'rejected');
      assert.deepEqual(failed, [false, true, false, false, true, false, true]);
      assert.equal(await count(db), 4);
      assert.equal(db.commits - before, 1);
    }));

  test('a full disk fails a whole group, and none of its writes is committed', () =>
    withNotes(async (db) => {
      // The engine reports its own page limit as a full disk.
      await db.query(sql`select 1`);
      const [pages] = await db.query<{ page_count: number }>(sql`pragma page_count`);
      await db.execute({
        texts: [`pragma max_page_count = ${(pages?.page_count ?? 0) + 2}`],
        values: [],
      });
      const big = sql`insert into notes (id, text) values (${100}, ${'x'.repeat(100_000)})`;

      const outcomes = await Promise.allSettled([db.execute(add(1)), db.execute(big)]);

      for (const outcome of outcomes) {
        assert.equal(outcome.status, 'rejected');
        assert.equal(outcome.reason.name, 'service_unavailable');
        assert.match(outcome.reason.message, /the disk is full/);
      }
      assert.equal(await db.execute(add(2)), 1); // A small write still fits.
      assert.equal(await count(db), 1);
    }));
});

// The tests mostly wait for deadlines, so they run at the same time, each with its own file.
describe('a transaction of the embedded database', { concurrency: true }, () => {
  test('a transaction has the writer to itself', () =>
    withNotes(async (db) => {
      const order: string[] = [];
      const transaction = db.transaction(async (tx) => {
        await tx.execute(add(1));
        order.push('inside');
        await tx.execute(add(2));
        order.push('end');
      });
      const beside = db.execute(add(3)).then(() => order.push('beside'));

      await Promise.all([transaction, beside]);

      assert.deepEqual(order, ['inside', 'end', 'beside']);
    }));

  test('when a transaction hits a full disk, its later statements are not applied', () =>
    withNotes(async (db) => {
      const [pages] = await db.query<{ page_count: number }>(sql`pragma page_count`);
      const setPagesMax = (count: number) =>
        db.execute({ texts: [`pragma max_page_count = ${count}`], values: [] });
      await setPagesMax((pages?.page_count ?? 0) + 2);
      const big = sql`insert into notes (id, text) values (${100}, ${'x'.repeat(100_000)})`;

      const failing = db.transaction((tx) => Promise.all([tx.execute(big), tx.execute(add(1))]));

      await assert.rejects(failing, { name: 'service_unavailable', message: /the disk is full/ });
      assert.equal(await count(db), 0);
      await setPagesMax(1_000_000);
      await db.transaction((tx) => tx.execute(add(2)));
      assert.deepEqual(await db.query(sql`select id from notes`), [{ id: 2 }]);
    }));

  test('a failed transaction does not affect the transaction that waits behind it', () =>
    withNotes(async (db) => {
      const failing = db.transaction(async (tx) => {
        await tx.execute(add(1));
        throw new Error('not this one');
      });
      const following = db.transaction((tx) => Promise.all([tx.execute(add(2)), count(tx)]));

      await assert.rejects(failing, { message: 'not this one' });
      assert.deepEqual(await following, [1, 1]);
      assert.deepEqual(await db.query(sql`select id from notes`), [{ id: 2 }]);
    }));

  test('a transaction that cannot begin rejects, and so do its statements; the next transaction begins', () =>
    withNotes(async (db, file) => {
      const Driver = await loadSqlite();
      const other = new Driver(file);
      other.exec('begin immediate'); // The writer waits 5 s for SQLite's write lock.

      const failing = db.transaction((tx) => Promise.all([tx.execute(add(1)), count(tx)]));
      const following = db.transaction((tx) => tx.execute(add(2)));
      await assert.rejects(failing, { name: 'service_unavailable' });
      other.exec('rollback');
      other.close();

      assert.equal(await following, 1);
      assert.deepEqual(await db.query(sql`select id from notes`), [{ id: 2 }]);
    }));

  test('writes that wait behind a stuck write are refused at their deadline until the writer continues', async () => {
    const db = await open(await createFileWithNotes(), { deadlineMs: 500 });
    try {
      // Takes some seconds, like a hanging disk.
      const stuck = db.execute(
        sql`insert into notes (id) select max(i) from (
          with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000000)
          select i from n)`,
      );

      const refused = { name: 'service_unavailable' };
      await Promise.all([
        assert.rejects(stuck, refused),
        assert.rejects(db.execute(add(1)), refused),
        assert.rejects(db.batch([add(2)]), refused),
        assert.rejects(
          db.transaction((tx) => tx.execute(add(3))),
          refused,
        ),
      ]);
      await writeOne(db, 4);

      const found = await db.query(sql`select id from notes where id = 3`);
      assert.deepEqual(found, [], 'a rejected transaction is not committed later');
    } finally {
      await db.close();
    }
  });

  test('a transaction past its deadline is rolled back and the writer continues', async () => {
    const db = await open(await createFileWithNotes(), { deadlineMs: 500 });
    try {
      let release = (): void => undefined;
      const stuck = new Promise<void>((resolve) => {
        release = resolve;
      });

      const late: Promise<unknown>[] = [];
      const rejected = db.transaction(async (tx) => {
        await tx.execute(add(1));
        await stuck;
        late.push(tx.execute(add(2)));
        await Promise.allSettled(late);
      });

      await assert.rejects(rejected, { name: 'service_unavailable' });
      const newId = await writeOne(db, 3);
      release();
      await new Promise(setImmediate); // The callback of the transaction continues now, and its statement is refused.
      await assert.rejects(late[0] ?? Promise.resolve(), { name: 'service_unavailable' });
      assert.deepEqual(await db.query(sql`select id from notes where id < 3 or id = ${newId}`), [
        { id: newId },
      ]);
    } finally {
      await db.close();
    }
  });
});

describe('limits of the embedded database', () => {
  test('the embedded database refuses a query that writes', () =>
    withNotes(async (db) => {
      await assert.rejects(db.query(add(1)), /^Error: Cannot run statement: insert into notes/);
      assert.equal(await count(db), 0);
    }));

  test('the embedded database refuses writes while 10,000 wait, and accepts them again later', () =>
    withNotes(async (db) => {
      const ids = Array.from({ length: 10_001 }, (_, id) => id);

      const outcomes = await Promise.allSettled(ids.map((id) => db.execute(add(id))));

      const rejected = outcomes.filter((outcome) => outcome.status === 'rejected');
      assert.equal(rejected.length, 1);
      assert.equal(rejected[0]?.reason.name, 'service_unavailable');
      assert.equal(await db.execute(add(20_000)), 1);
    }));

  test('the embedded database refuses writes while 64 MiB wait', () =>
    withNotes(async (db) => {
      // 50 MiB, because each character of a value counts as two bytes.
      const rows = tuples(Array.from({ length: 5 }, (_, id) => [id, 'x'.repeat(5 * 1024 * 1024)]));
      const big = sql`insert into notes (id, text) values ${rows}`;

      const outcomes = await Promise.allSettled([db.execute(big), db.execute(big)]);

      assert.deepEqual(
        outcomes.map((outcome) => outcome.status === 'rejected' && outcome.reason.name),
        [false, 'service_unavailable'],
      );
    }));

  test('the embedded database refuses an invalid file, a folder, and :memory:', async () => {
    const path = join(folder, 'folder.db');
    const text = join(folder, 'text.db');
    mkdirSync(path);
    writeFileSync(text, 'x'.repeat(4096));

    await assert.rejects(open(path), /Cannot open database .*: it cannot be read by this user/);
    await assert.rejects(open(':memory:'), /Cannot open database: it needs a file/);
    await assert.rejects(open(text), /Cannot open database .*: it is not an SQLite database/);
    await assert.rejects(open(join(text, 'a', 'b.db')), /Cannot open database .*: ENOTDIR/);
  });
});

describe('the file of the embedded database', () => {
  test('the database file and its folder are accessible to the owner only', async () => {
    const file = join(folder, 'new', 'deep', 'a.db');

    await (await open(file)).close();

    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.equal(statSync(join(folder, 'new')).mode & 0o777, 0o700);
  });

  test('after close the database file is complete without its write-ahead log', () =>
    withNotes(async (db, file) => {
      await db.execute(add(1));

      await db.close();
      copyFileSync(file, `${file}-copy`);
      const copy = await open(`${file}-copy`);

      assert.equal(await count(copy), 1);
      await copy.close();
    }));

  test('rows survive closing and reopening', () =>
    withNotes(async (db, file) => {
      await db.execute(add(1));
      await db.close();

      const again = await open(file);

      assert.equal(await count(again), 1);
      await again.close();
    }));

  test('a database file cannot be opened twice in one process, not even through a link', () =>
    withNotes(async (_db, file) => {
      symlinkSync(file, `${file}-link`);

      await assert.rejects(open(file), /process \d+ on .* has it open.*DB_DIALECT/);
      await assert.rejects(open(`${file}-link`), /process \d+ on .* has it open.*DB_DIALECT/);
    }));

  test('the error in a second process names the process that has the file open, and the alternatives', () =>
    withNotes(async (_db, file) => {
      const child = startChild(file, 'await openDatabase(options).catch((e) => print(e.message))');

      const [message] = await child.lines(1);

      assert.match(message ?? '', new RegExp(`process ${process.pid} on .* has it open`));
      assert.match(message ?? '', /DB_DIALECT=postgres/);
      await child.ended();
    }));

  test('no acknowledged write is lost when the process is killed', async () => {
    for (let round = 0; round < 3; round++) {
      const file = newFile();
      const child = startChild(
        file,
        `const db = await openDatabase(options);
         await db.execute(sql\`create table notes (id integer primary key, text text) strict\`);
         let id = 0;
         for (let caller = 0; caller < 32; caller++) void (async () => {
           for (;;) {
             const newId = ++id;
             await db.execute(sql\`insert into notes values (\${newId}, \${'x'.repeat(200)})\`);
             print(newId);
           }
         })();`,
      );
      const acknowledged = await child.lines(500 + round * 333); // So each round kills it later.

      child.kill();
      acknowledged.push(...(await child.ended()));

      const db = await open(file); // At once: the killed process holds no lock.
      assert.deepEqual(await db.query(sql`pragma integrity_check`), [{ integrity_check: 'ok' }]);
      const rows = await db.query<{ id: number }>(sql`select id from notes`);
      const kept = new Set(rows.map(({ id }) => String(id)));
      assert.deepEqual(
        acknowledged.filter((id) => !kept.has(id)),
        [],
      );
      await db.close();
    }
  });

  test('a file with a newer schema than the program is refused', async () => {
    const file = newFile();
    const db = await open(file);
    await db.execute(sql`insert into schema_migration values (99, 'later', 'x', 0, 0, 0)`);
    await db.close();

    await assert.rejects(
      openDatabase({ dialect: 'sqlite', file, log: silentLogger }),
      /Cannot use schema: it is version 99, and this program knows up to \d+/,
    );
  });
});

test('when the reader thread cannot start, the writer thread is closed and the lock is released', async (t) => {
  const file = newFile();
  await (await open(file)).close();
  const start = DatabaseThread.start.bind(DatabaseThread);
  const started: DatabaseThread[] = [];
  const { mock } = t.mock.method(
    DatabaseThread,
    'start',
    async (...parts: Parameters<typeof start>) => {
      const writer = await start(...parts);
      t.after(() => writer.close());
      started.push(writer);
      renameSync(file, `${file}-away`); // The thread has the file open already.
      return writer;
    },
  );

  await assert.rejects(open(file), /Cannot open database .*: it cannot be read/);

  const threadEnded = { name: 'service_unavailable', message: /the database thread has ended/ };
  assert.equal(started.length, 1);
  for (const writer of started) await assert.rejects(writer.execute('select 1', []), threadEnded);
  mock.restore();
  renameSync(`${file}-away`, file);
  await (await open(file)).close();
});

describe('a batch of the embedded database', () => {
  const rename = (id: number, text: string) =>
    sql`update notes set text = ${text} where id = ${id}`;

  test('a batch is one commit, and each statement sees the ones before it', () =>
    withNotes(async (db) => {
      const before = db.commits;

      const isDone = await db.batch([add(1), add(2), rename(1, 'one'), rename(2, 'two')]);

      assert.equal(isDone, true);
      assert.equal(db.commits - before, 1);
      const rows = await db.query(sql`select id, text from notes order by id`);
      assert.deepEqual(rows, [
        { id: 1, text: 'one' },
        { id: 2, text: 'two' },
      ]);
    }));

  test('a batch with a statement that matches no row changes nothing', () =>
    withNotes(async (db) => {
      assert.equal(await db.batch([add(1), rename(7, 'seven'), add(2)]), false);
      assert.equal(await count(db), 0);
    }));

  test('a batch with a duplicate key or an invalid statement changes nothing, and the next one succeeds', () =>
    withNotes(async (db) => {
      await assert.rejects(db.batch([add(1), add(1)]), UniqueViolation);
      await assert.rejects(
        db.batch([add(1), sql`insert into nowhere values (${'secret'})`]),
        (error: Error) => /nowhere/.test(error.message) && !/secret/.test(error.message),
      );
      assert.equal(await count(db), 0);
      assert.equal(await db.batch([add(1)]), true);
    }));

  test('a batch runs in order among single writes and transactions', () =>
    withNotes(async (db) => {
      await Promise.all([
        db.transaction(async (tx) => {
          await tx.execute(add(1));
          await tx.execute(rename(1, 'first'));
        }),
        db.batch([rename(1, 'second')]),
        db.execute(sql`update notes set text = ${'third'} where text = ${'second'}`),
      ]);

      assert.deepEqual(await db.query(sql`select text from notes`), [{ text: 'third' }]);
    }));

  test('a batch of more than 64 MiB is refused, and so is a batch after close', async () => {
    const db = await open();
    const tooMuch = sql`insert into notes values (${'x'.repeat(33 * 1024 * 1024)})`;
    await assert.rejects(db.batch([tooMuch]), { name: 'service_unavailable' });
    await db.close();

    await assert.rejects(db.batch([add(1)]), /it is closed/);
  });
});

/** Starts a process that runs `script` with `openDatabase`, `options` and `print` (a line). */
function startChild(file: string, script: string) {
  const toImport = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
  const code = `
    import { openDatabase } from ${toImport('../open.ts')};
    import { sql } from ${toImport('../database.ts')};
    import { silentLogger } from ${toImport('../../logging/logger.ts')};
    const options = { dialect: 'sqlite', file: ${JSON.stringify(file)}, lockMs: 0, log: silentLogger };
    const print = (line) => process.stdout.write(line + '\\n');
    ${script}`;
  const entry = join(folder, `${++files}.mts`);
  writeFileSync(entry, code);
  const child = spawn(process.execPath, ['--import', 'tsx', entry], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit'); // Its output may end before its lock is released.
  const reader = createInterface({ input: child.stdout });
  const iterator = reader[Symbol.asyncIterator]();
  return {
    kill: () => child.kill('SIGKILL'),
    async lines(max: number): Promise<string[]> {
      const found: string[] = [];
      while (found.length < max) {
        const { value, done } = await withDeadline(iterator.next(), 'a line of the process');
        if (done === true) break;
        found.push(value);
      }
      return found;
    },
    /** Resolves with the remaining lines once the process has exited. */
    async ended(): Promise<string[]> {
      const rest = await this.lines(Number.POSITIVE_INFINITY);
      await withDeadline(exited, 'the exit of the process');
      return rest;
    },
  };
}
