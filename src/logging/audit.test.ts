import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Audit } from './audit.js';
import { silentLogger } from './logger.js';

test('a pseudonym is stable in a process, differs between names, and cannot be computed by others', () => {
  const [own, other] = [new Audit({ log: silentLogger }), new Audit({ log: silentLogger })];

  assert.match(own.pseudonym('ada'), /^[0-9a-f]{16}$/);
  assert.equal(own.pseudonym('ada'), own.pseudonym('ada'));
  assert.notEqual(own.pseudonym('ada'), own.pseudonym('bob'));
  assert.notEqual(own.pseudonym('ada'), other.pseudonym('ada'));
});
