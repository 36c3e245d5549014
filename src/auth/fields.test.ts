import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Failure } from '../errors.js';
import { parseChoice, parseFields } from './fields.js';

const names = ['username', 'password'] as const;

const incomplete: readonly (readonly [unknown, readonly string[]])[] = [
  [undefined, names],
  [null, names],
  ['username', names],
  [7, names],
  [[], names],
  [['username', 'password'], names],
  [{}, names],
  [{ username: 'ada' }, ['password']],
  [{ username: '', password: 'x' }, ['username']],
  [{ username: ['ada'], password: 'x' }, ['username']],
  [{ username: { $ne: null }, password: { $ne: null } }, names],
  [{ username: 7, password: true }, names],
];

for (const [body, missing] of incomplete) {
  test(`a body ${JSON.stringify(body)} lacks ${missing.join(' and ')}`, () => {
    assert.throws(
      () => parseFields(body, names),
      (failure: Failure) => {
        assert.equal(failure.name, 'missing_required_parameter');
        assert.deepEqual(failure.info, { body: missing });
        return true;
      },
    );
  });
}

test('inherited members such as constructor are not fields', () => {
  assert.throws(() => parseFields({}, ['constructor', 'toString']));
});

test('an absent choice defaults to the first; an invalid one is rejected', () => {
  const allowed = ['session', 'others', 'all'] as const;

  assert.equal(parseChoice(undefined, 'scope', allowed), 'session');
  assert.equal(parseChoice({}, 'scope', allowed), 'session');
  assert.equal(parseChoice({ scope: 'all' }, 'scope', allowed), 'all');
  for (const scope of ['', 'ALL', 'global', 7, null, ['all'], { all: 1 }]) {
    assert.throws(
      () => parseChoice({ scope }, 'scope', allowed),
      (failure: Failure) => {
        assert.equal(failure.name, 'invalid_request');
        assert.deepEqual(failure.info, { body: ['scope'], allowed });
        return true;
      },
    );
  }
  for (const body of [null, [], 'all', 7]) {
    assert.throws(() => parseChoice(body, 'scope', allowed), { name: 'invalid_request' });
  }
});
