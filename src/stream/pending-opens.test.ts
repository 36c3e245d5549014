import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PendingOpens } from './pending-opens.js';

const numbered = (seq: number) => ({ seq, entry: { kind: 'key_revoked', keyId: 'k' } }) as const;

test('every pending open keeps up to 1000 control entries, and one more marks it as behind', () => {
  const opens = new PendingOpens();
  const early = opens.add();
  opens.keep(numbered(0));
  const late = opens.add();

  for (let seq = 1; seq < 1000; seq += 1) opens.keep(numbered(seq));
  assert.deepEqual([early.isBehind, late.isBehind], [false, false]);
  opens.keep(numbered(1000));

  assert.deepEqual([early.isBehind, late.isBehind], [true, false]);
  assert.deepEqual(
    early.entries,
    Array.from({ length: 1000 }, (_, seq) => numbered(seq)),
  );
  assert.deepEqual(late.entries.length, 1000);
});

test('an open that has ended keeps no further entries', () => {
  const opens = new PendingOpens();
  const [ended, pending] = [opens.add(), opens.add()];

  opens.remove(ended);
  opens.remove(ended);
  opens.keep(numbered(1));
  opens.markAllBehind();

  assert.equal(opens.size, 1);
  assert.deepEqual([ended.entries.length, ended.isBehind], [0, false]);
  assert.deepEqual([pending.entries.length, pending.isBehind], [1, true]);
});
