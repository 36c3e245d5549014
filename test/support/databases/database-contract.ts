import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  type Database,
  list,
  sql,
  tuples,
  UniqueViolation,
  type Value,
} from '../../../src/db/database.js';

/** Opens a database for the table `notes`; on a database server, with at least two connections. */
export type Opener = () => Promise<Database>;

/** Tests the contract of `Database` on one dialect. `skip` is the reason when it cannot be tested here. */
export function describeDatabase(name: string, open: Opener, skip: string | false = false): void {
  async function withNotes(work: (db: Database) => Promise<void>): Promise<void> {
    const db = await open();
    try {
      await createNotesTable(db);
      await work(db);
    } finally {
      await db.close();
    }
  }

  describe(`${name} keeps the database contract`, { skip }, () => {
    describe('values', () => describeValues(withNotes));
    describe('statements', () => describeStatements(withNotes));
    describe('transactions', () => describeTransactions(withNotes));
    describe('closing', () => describeClosing(open));
  });
}

type WithNotes = (work: (db: Database) => Promise<void>) => Promise<void>;

const add = (id: number, text: string) => sql`insert into notes (id, text) values (${id}, ${text})`;
const all = sql`select id, text from notes order by id`;

function describeValues(withNotes: WithNotes): void {
  test('values are read back exactly as they were written', () =>
    withNotes(async (db) => {
      const at = 1_767_225_600_000; // Above 2^31, to detect a 32-bit column or driver.
      const texts = ["it's", '?', '$1', '"; drop table notes; --', 'é\u{1F41D}', '', ' ', 'a\\b\n'];
      for (const [id, text] of texts.entries()) {
        await db.execute(sql`insert into notes (id, text, at) values (${id}, ${text}, ${at})`);

        const rows = await db.query(
          sql`select id, text, at from notes where id = ${id} and text = ${text}`,
        );

        assert.deepEqual(rows, [{ id, text, at }]);
      }
    }));

  for (const number of [0, -1, 2 ** 31, 2 ** 53 - 1, -(2 ** 53 - 1)]) {
    test(`the number ${number} is stored exactly`, () =>
      withNotes(async (db) => {
        await db.execute(sql`insert into notes (id, at) values (${1}, ${number})`);

        assert.deepEqual(await db.query(sql`select at from notes where at = ${number}`), [
          { at: number },
        ]);
      }));
  }

  test('null is stored and matched as null', () =>
    withNotes(async (db) => {
      await db.execute(sql`insert into notes (id, text) values (${1}, ${null})`);

      const rows = await db.query(sql`select text, at, bytes from notes where text is null`);

      assert.deepEqual(rows, [{ text: null, at: null, bytes: null }]);
    }));

  for (const bytes of [new Uint8Array([0, 39, 92, 255]), Buffer.from('é?')]) {
    test(`${bytes.byteLength} bytes are read back unchanged`, () =>
      withNotes(async (db) => {
        await db.execute(sql`insert into notes (id, bytes) values (${1}, ${bytes})`);

        const [row] = await db.query<{ bytes: Uint8Array }>(sql`select bytes from notes`);

        assert.ok(row?.bytes instanceof Uint8Array);
        assert.deepEqual([...row.bytes], [...bytes]);
      }));
  }

  test('counts and sums are returned as numbers', () =>
    withNotes(async (db) => {
      const rows = tuples([
        [1, 2 ** 40],
        [2, 2 ** 40],
      ]);
      await db.execute(sql`insert into notes (id, at) values ${rows}`);

      assert.deepEqual(
        await db.query(sql`select count(*) as count, sum(at) as sum, max(id) as max from notes`),
        [{ count: 2, sum: 2 ** 41, max: 2 }],
      );
    }));

  test('reading a number above 2^53 fails instead of rounding, and later queries work', () =>
    withNotes(async (db) => {
      await db.execute(sql`insert into notes (id, at) values (${1}, 9007199254740993)`);

      await assert.rejects(db.query(sql`select at from notes`), { name: 'Error' });

      for (let round = 0; round < 8; round++) {
        assert.deepEqual(await db.query(sql`select id from notes`), [{ id: 1 }]);
      }
    }));
}

function describeStatements(withNotes: WithNotes): void {
  test('many rows are inserted by one statement and selected by a list of keys', () =>
    withNotes(async (db) => {
      const rows = Array.from({ length: 1000 }, (_, id): Value[] => [id, `note ${id}`]);

      const count = await db.execute(sql`insert into notes (id, text) values ${tuples(rows)}`);
      const ids = [7, 500, 999, 5000];
      const found = await db.query(
        sql`select id from notes where id in (${list(ids)}) order by id limit ${10}`,
      );

      assert.equal(count, 1000);
      assert.deepEqual(found, [{ id: 7 }, { id: 500 }, { id: 999 }]);
    }));

  test('execute counts the rows that matched, even when none of them changed', () =>
    withNotes(async (db) => {
      await db.execute(add(1, 'same'));
      await db.execute(add(2, 'same'));

      assert.equal(await db.execute(sql`update notes set text = ${'same'}`), 2);
      assert.equal(await db.execute(sql`update notes set text = ${'x'} where id = ${3}`), 0);
      assert.equal(await db.execute(sql`delete from notes where id = ${2}`), 1);
    }));

  test('a query sees every write that resolved before it', () =>
    withNotes(async (db) => {
      for (let id = 0; id < 50; id++) {
        await db.execute(add(id, 'new'));
        assert.deepEqual(await db.query(sql`select id from notes where id = ${id}`), [{ id }]);
      }
    }));

  test('a duplicate key is a UniqueViolation without values, and none of the rows is inserted', () =>
    withNotes(async (db) => {
      await db.execute(add(7, 'first'));
      const rows = tuples([
        [8, 'secret'],
        [7, 'secret'],
      ]);

      await assert.rejects(
        db.execute(sql`insert into notes (id, text) values ${rows}`),
        (error: Error) => error instanceof UniqueViolation && !error.message.includes('secret'),
      );
      assert.deepEqual(await db.query(all), [{ id: 7, text: 'first' }]);
    }));

  test('exactly one of two concurrent compare-and-swap updates succeeds', () =>
    withNotes(async (db) => {
      await db.execute(add(1, 'old'));
      const swap = (to: string) =>
        db.execute(sql`update notes set text = ${to} where text = ${'old'}`);

      const counts = await Promise.all([swap('mine'), swap('yours')]);

      assert.deepEqual(counts.sort(), [0, 1]);
    }));

  test('concurrent increments are all applied', () =>
    withNotes(async (db) => {
      await db.execute(sql`insert into notes (id, at) values (1, 0)`);

      await Promise.all(
        Array.from({ length: 100 }, () => db.execute(sql`update notes set at = at + ${1}`)),
      );

      assert.deepEqual(await db.query(sql`select at from notes`), [{ at: 100 }]);
    }));

  test('a failed statement does not affect statements that were started together with it', () =>
    withNotes(async (db) => {
      const outcomes = await Promise.allSettled([
        db.execute(add(1, 'one')),
        db.execute(sql`insert into notes (id, nothing) values (${2}, ${'x'})`),
        db.execute(add(1, 'taken')),
        db.execute(add(3, 'three')),
      ]);

      const states = outcomes.map(({ status }) => status);
      assert.equal(states.filter((state) => state === 'rejected').length, 2);
      assert.equal(states[3], 'fulfilled');
      assert.equal((await db.query(all)).length, 2);
    }));

  test('the error of an invalid statement contains its text but no values', () =>
    withNotes(async (db) => {
      for (const run of [db.query.bind(db), db.execute.bind(db)]) {
        await assert.rejects(
          run(sql`select nothing from nowhere where secret = ${'hunter2'}`),
          (error: Error) =>
            /^Cannot run statement: select nothing from nowhere/.test(error.message) &&
            !`${error.stack}${(error.cause as Error).stack}`.includes('hunter2'),
        );
      }
    }));
}

function describeTransactions(withNotes: WithNotes): void {
  test('a transaction commits all statements and returns the result of its work', () =>
    withNotes(async (db) => {
      const result = await db.transaction(async (tx) => {
        await tx.execute(add(1, 'one'));
        await tx.execute(add(2, 'two'));
        return ['whole', 'array'];
      });

      assert.deepEqual(result, ['whole', 'array']);
      assert.equal((await db.query(all)).length, 2);
    }));

  test('a transaction sees its own changes; others see them after the commit', () =>
    withNotes(async (db) => {
      await db.execute(add(1, 'old'));

      await db.transaction(async (tx) => {
        await tx.execute(sql`update notes set text = ${'new'}`);
        assert.deepEqual(await tx.query(all), [{ id: 1, text: 'new' }]);
        assert.deepEqual(await db.query(all), [{ id: 1, text: 'old' }]);
      });

      assert.deepEqual(await db.query(all), [{ id: 1, text: 'new' }]);
    }));

  test('a rejected transaction changes nothing and rejects with the same error', () =>
    withNotes(async (db) => {
      const reason = new Error('on second thought');

      const rejected = db.transaction(async (tx) => {
        await tx.execute(add(1, 'one'));
        throw reason;
      });

      await assert.rejects(rejected, (error) => error === reason);
      assert.deepEqual(await db.query(all), []);
    }));

  test('a failed statement aborts the transaction even when its error is caught', () =>
    withNotes(async (db) => {
      await db.execute(add(1, 'first'));

      const rejected = db.transaction(async (tx) => {
        await tx.execute(add(2, 'second'));
        await assert.rejects(tx.execute(add(1, 'again')), UniqueViolation);
        await assert.rejects(
          tx.execute(add(3, 'third')),
          /an earlier statement of the transaction failed/,
        );
      });

      await assert.rejects(rejected, UniqueViolation);
      assert.deepEqual(await db.query(all), [{ id: 1, text: 'first' }]);
    }));

  test('a statement that is not awaited is still part of the transaction', () =>
    withNotes(async (db) => {
      await db.transaction(async (tx) => {
        void tx.execute(add(1, 'one'));
      });
      const rejected = db.transaction(async (tx) => {
        await tx.execute(add(2, 'two'));
        tx.execute(add(1, 'taken')).catch(() => 'ignored');
      });

      await assert.rejects(rejected, UniqueViolation);
      assert.deepEqual(await db.query(all), [{ id: 1, text: 'one' }]);
    }));

  test('a transaction cannot be nested, closed, or used after its end', () =>
    withNotes(async (db) => {
      let kept: Database | undefined;

      await db.transaction(async (tx) => {
        kept = tx;
        assert.equal(tx.dialect, db.dialect);
        await assert.rejects(
          tx.transaction(async () => 1),
          /one is open/,
        );
        await assert.rejects(tx.close(), /this is a transaction/);
      });

      await assert.rejects(async () => kept?.query(all), /the transaction has ended/);
      await assert.rejects(async () => kept?.execute(add(1, 'late')), /the transaction has ended/);
      assert.deepEqual(await db.query(all), []);
    }));

  test('deadlocked transactions are retried and both commit', () =>
    withNotes(async (db) => {
      await db.execute(sql`insert into notes (id, at) values (1, 0), (2, 0)`);
      const increment = (tx: Database, id: number) =>
        tx.execute(sql`update notes set at = at + 1 where id = ${id}`);
      const barrier = new Barrier(2);
      const updateInOrder = (ids: readonly [number, number]) =>
        db.transaction(async (tx) => {
          await increment(tx, ids[0]);
          // The embedded database runs one transaction at a time, so the other would never arrive.
          if (db.dialect !== 'sqlite') await barrier.arrive();
          await increment(tx, ids[1]);
        });

      await Promise.all([updateInOrder([1, 2]), updateInOrder([2, 1])]);

      const rows = await db.query(sql`select at from notes`);
      assert.deepEqual(rows, [{ at: 2 }, { at: 2 }]);
    }));

  test('statements pipelined after a statement that fails are not applied', () =>
    withNotes(async (db) => {
      await db.execute(sql`insert into notes (id, at) values (1, 0), (2, 0)`);
      const increment = (tx: Database, id: number) =>
        tx.execute(sql`update notes set at = at + 1 where id = ${id}`);
      const barrier = new Barrier(2);
      let tries = 0;
      const updateInOrder = (ids: readonly [number, number]) =>
        db.transaction(async (tx) => {
          const key = 100 + ++tries; // Unique, so that a row of a failed attempt would be found.
          await increment(tx, ids[0]);
          if (db.dialect !== 'sqlite') await barrier.arrive();
          await Promise.all([increment(tx, ids[1]), tx.execute(add(key, 'pipelined'))]);
        });

      await Promise.all([updateInOrder([1, 2]), updateInOrder([2, 1])]);

      const pipelined = await db.query(sql`select id from notes where text = ${'pipelined'}`);
      assert.equal(pipelined.length, 2, `of ${tries} attempts`);
    }));

  test('more transactions than connections finish, even if each waits for a statement outside the transaction', () =>
    withNotes(async (db) => {
      await db.execute(sql`insert into notes (id, at) values (1, 0)`);

      await Promise.all(
        Array.from({ length: 20 }, () =>
          db.transaction(async (tx) => {
            await db.query(sql`select at from notes`);
            await tx.execute(sql`update notes set at = at + 1`);
          }),
        ),
      );

      assert.deepEqual(await db.query(sql`select at from notes`), [{ at: 20 }]);
    }));
}

function describeClosing(open: Opener): void {
  test('close is idempotent, and later calls are refused', async () => {
    const db = await open();

    await Promise.all([db.close(), db.close()]);
    await db.close();

    await assert.rejects(db.query(all), /Cannot use database: it is closed/);
    await assert.rejects(db.execute(add(1, 'x')), /Cannot use database: it is closed/);
    await assert.rejects(
      db.transaction(async () => 1),
      /Cannot use database: it is closed/,
    );
  });

  test('close waits for running statements and transactions', async () => {
    const db = await open();
    await createNotesTable(db);
    const statements = Array.from({ length: 20 }, (_, id) => db.execute(add(id, 'x')));
    const transaction = db.transaction(async (tx) => {
      await tx.execute(add(20, 'x'));
      await tx.execute(add(21, 'x'));
      return 'done';
    });

    await db.close();

    assert.deepEqual(await Promise.all(statements), Array(20).fill(1));
    assert.equal(await transaction, 'done');
  });
}

async function createNotesTable(db: Database): Promise<void> {
  const bytes = db.dialect === 'postgres' ? sql`bytea` : sql`blob`;
  await db.execute(sql`drop table if exists notes`);
  await db.execute(
    sql`create table notes (id integer unique, text varchar(64), at bigint, bytes ${bytes})`,
  );
}

/** Blocks callers until `count` of them have arrived; later callers pass at once. */
class Barrier {
  readonly #complete: Promise<void>;
  #missing: number;
  #finish: () => void = () => undefined;

  constructor(count: number) {
    this.#missing = count;
    this.#complete = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  arrive(): Promise<void> {
    this.#missing -= 1;
    if (this.#missing <= 0) this.#finish();
    return this.#complete;
  }
}
