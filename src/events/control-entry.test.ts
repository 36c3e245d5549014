import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatControlEntry, parseControlEntry, sessionsEnded } from './control-entry.js';

test('an entry is read as it was written', () => {
  const entries = [
    { kind: 'sessions_ended', sessionIds: ['a', 'b'] },
    { kind: 'key_revoked', keyId: 'k' },
  ] as const;

  for (const entry of entries)
    assert.deepEqual(parseControlEntry(formatControlEntry(entry)), entry);
});

test('an entry of another version is not understood, and not an error', () => {
  const texts = [
    '{"kind":"invented_later","sessionIds":["a"]}',
    '{"kind":"sessions_ended","sessionIds":"a"}',
    '{"kind":"sessions_ended","sessionIds":[1]}',
    '{"kind":"key_revoked"}',
    '{}',
  ];

  for (const text of texts) assert.equal(parseControlEntry(text), undefined, text);
});

test('a field that was added later is ignored', () => {
  assert.deepEqual(parseControlEntry('{"kind":"key_revoked","keyId":"k","by":"admin"}'), {
    kind: 'key_revoked',
    keyId: 'k',
  });
});

test('an entry names at most 500 sessions', () => {
  const ids = Array.from({ length: 1001 }, (_, index) => String(index).padStart(32, '0'));

  const entries = sessionsEnded(ids);

  const named = entries.map((entry) => ('sessionIds' in entry ? entry.sessionIds : []));
  assert.deepEqual(
    named.map(({ length }) => length),
    [500, 500, 1],
  );
  assert.deepEqual(named.flat(), ids);
  assert.ok(entries.every((entry) => formatControlEntry(entry).length < 65_536));
  assert.deepEqual(sessionsEnded([]), []);
});
