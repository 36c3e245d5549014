import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  dollar,
  inserts,
  list,
  questionMark,
  render,
  sql,
  tuples,
  type Value,
} from './database.js';

describe('sql', () => {
  test('sql keeps text and values apart', () => {
    const name = "'; drop table users; --";

    const statement = sql`select * from users where name = ${name} and id > ${7}`;

    assert.equal(render(statement, dollar), 'select * from users where name = $1 and id > $2');
    assert.deepEqual(statement.values, [name, 7]);
  });

  test('sql nests parts at any position, also adjacent ones', () => {
    const columns = sql`id, name`;
    const where = sql`where a = ${1} and b in (${list(['x', 'y'])})`;

    const statement = sql`select ${columns} from t ${where}${sql` limit ${5}`}`;

    const text = 'select id, name from t where a = $1 and b in ($2, $3) limit $4';
    assert.equal(render(statement, dollar), text);
    assert.deepEqual(statement.values, [1, 'x', 'y', 5]);
  });

  test('sql accepts a single part and a single value', () => {
    assert.equal(render(sql`${sql`select 1`}`, dollar), 'select 1');
    assert.equal(render(sql`${1}`, dollar), '$1');
    assert.equal(render(sql``, dollar), '');
  });

  for (const unbindable of [
    undefined,
    true,
    1n,
    new Date(0),
    {},
    ['a'],
    NaN,
    Infinity,
    new Uint8Array(),
  ]) {
    test(`sql refuses to bind ${String(unbindable)}`, () => {
      const value = unbindable as unknown as Value;

      assert.throws(() => sql`select ${value}`, /^TypeError: Cannot bind /);
      assert.throws(() => sql`${sql`select`} ${value}`, /^TypeError: Cannot bind /);
      assert.throws(() => list([value]), /^TypeError: Cannot bind /);
      assert.throws(() => tuples([[value]]), /^TypeError: Cannot bind /);
    });
  }

  for (const bindable of [
    '',
    'é',
    0,
    -1.5,
    2 ** 53 - 1,
    null,
    new Uint8Array(2),
    Buffer.from('x'),
  ]) {
    test(`sql binds ${JSON.stringify(bindable)}`, () => {
      assert.deepEqual(sql`select ${bindable}`.values, [bindable]);
    });
  }
});

describe('list', () => {
  test('list renders one placeholder per value', () => {
    assert.equal(render(sql`in (${list([1])})`, questionMark), 'in (?)');
    assert.equal(render(sql`in (${list([1, 2, 3])})`, questionMark), 'in (?, ?, ?)');
  });

  test('list refuses an empty array', () => {
    assert.throws(() => list([]), /Cannot make an SQL list: it has no values/);
  });
});

describe('tuples', () => {
  test('tuples renders one pair of parentheses per row', () => {
    const rows = tuples([
      [1, 'a'],
      [2, 'b'],
    ]);

    const statement = sql`insert into t (x, y) values ${rows}`;

    assert.equal(render(statement, dollar), 'insert into t (x, y) values ($1, $2), ($3, $4)');
    assert.deepEqual(statement.values, [1, 'a', 2, 'b']);
    assert.equal(render(tuples([[1], [2]]), questionMark), '(?), (?)');
  });

  test('tuples refuses no rows, empty rows and rows of different lengths', () => {
    assert.throws(() => tuples([]), /there are no values/);
    assert.throws(() => tuples([[]]), /there are no values/);
    assert.throws(() => tuples([[1, 2], [3]]), /lengths differ/);
  });
});

describe('inserts', () => {
  const createInserts = (rows: readonly (readonly Value[])[]) =>
    inserts(sql`insert into t (x, y) values `, rows);
  const pairs = (count: number) => Array.from({ length: count }, (_, index) => [index, 'a']);

  test('inserts returns no statement for no rows, and one statement for up to 100 rows', () => {
    const [statement, ...others] = createInserts(pairs(2));

    assert.deepEqual(createInserts([]), []);
    assert.deepEqual(others, []);
    assert.equal(
      render(statement ?? sql``, dollar),
      'insert into t (x, y) values ($1, $2), ($3, $4)',
    );
    assert.deepEqual(statement?.values, [0, 'a', 1, 'a']);
    assert.equal(createInserts(pairs(100)).length, 1);
  });

  test('inserts contains each row once, in order, in statements of equal text', () => {
    const statements = [...createInserts(pairs(250)), ...createInserts(pairs(150))];

    const firsts = statements.map(({ values }) => values[0]);
    assert.deepEqual(firsts, [0, 100, 200, 0, 100]);
    assert.deepEqual(
      statements.flatMap(({ values }) => values),
      [...pairs(250), ...pairs(150)].flat(),
    );
    const texts = statements.map((statement) => render(statement, questionMark));
    assert.deepEqual([texts[1], texts[3], texts[4]], [texts[0], texts[0], texts[2]]);
    assert.match(texts[2] ?? '', /^insert into t \(x, y\) values (\(\?, \?\), ){49}\(\?, \?\)$/);
  });

  test('inserts splits rows into statements of at most 256 KiB, with one row at least', () => {
    const kib = 1024;
    const createRows = (sizes: readonly number[]) =>
      sizes.map((size) => [new Uint8Array(size * kib - 2), 'é']);
    const countRows = (sizes: readonly number[]) =>
      createInserts(createRows(sizes)).map(({ values }) => values.length / 2);

    assert.deepEqual(countRows([128, 128]), [2]);
    assert.deepEqual(countRows([128, 127, 2, 255, 1]), [2, 1, 2]);
    assert.deepEqual(countRows([300, 1, 300, 300]), [1, 1, 1, 1]);
    assert.deepEqual(countRows([1, 300]), [1, 1]);
  });

  test('inserts refuses invalid values and rows of different lengths', () => {
    assert.throws(() => createInserts([[1, Number.NaN]]), /Cannot bind NaN/);
    for (const unevenRows of [
      [[1, 'a'], [2]],
      [[1, 'a'], [2, 'b', 'c'], [3]],
      [[1], [2, 'b', 3]],
    ]) {
      assert.throws(() => createInserts(unevenRows), /lengths differ/);
      assert.throws(() => createInserts([...unevenRows].reverse()), /lengths differ/);
    }
  });
});

describe('render', () => {
  test('render uses the placeholders of each dialect', () => {
    const statement = sql`select ${1}, ${2}`;

    assert.equal(render(statement, dollar), 'select $1, $2');
    assert.equal(render(statement, questionMark), 'select ?, ?');
    assert.equal(render(statement, dollar), 'select $1, $2');
  });
});
