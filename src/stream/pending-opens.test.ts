import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PendingOpens } from './pending-opens.js';

const numbered = (seq: number) => ({ seq, entry: { kind: 'key_revoked', keyId: 'k' } }) as const;

test('every pending open keeps up to 1000 control entries, and one more marks its entries as incomplete', () => {
  const opens = new PendingOpens();
  const early = opens.add();
  opens.keep(numbered(0));
  const late = opens.add();

  for (let seq = 1; seq < 1000; seq += 1) opens.keep(numbered(seq));
  assert.deepEqual([early.isIncomplete, late.isIncomplete], [false, false]);
  opens.keep(numbered(1000));

  assert.deepEqual([early.isIncomplete, late.isIncomplete], [true, false]);
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
  opens.markAllIncomplete();

  assert.equal(opens.size, 1);
  assert.deepEqual([ended.entries.length, ended.isIncomplete], [0, false]);
  assert.deepEqual([pending.entries.length, pending.isIncomplete], [1, true]);
});
