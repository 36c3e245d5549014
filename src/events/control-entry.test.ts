import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  formatControlEntry,
  parseControlEntry,
  sessionsEnded,
  type Takeover,
  tokensTaken,
} from './control-entry.js';

test('a control entry is unchanged after it is formatted and parsed', () => {
  const entries = [
    { kind: 'sessions_ended', sessionIds: ['a', 'b'] },
    { kind: 'tokens_taken', takeovers: [{ tokenHash: 't', version: 2, streamId: 's' }] },
    { kind: 'token_revoked', tokenHash: 't' },
    { kind: 'key_revoked', keyId: 'k' },
    { kind: 'key_changed', keyId: 'k' },
    { kind: 'disconnected', disconnect: { userId: 'u', renew: true } },
    {
      kind: 'disconnected',
      disconnect: { userId: 'u', sessionIds: ['a'], streams: ['b'], renew: false },
    },
    { kind: 'token_extended', extension: { tokenHash: 't', endsAt: 1 } },
  ] as const;

  for (const entry of entries)
    assert.deepEqual(parseControlEntry(formatControlEntry(entry)), entry);
});

test('a control entry of an unknown kind or with invalid fields is parsed as undefined', () => {
  const texts = [
    '{"kind":"invented_later","sessionIds":["a"]}',
    '{"kind":"sessions_ended","sessionIds":"a"}',
    '{"kind":"sessions_ended","sessionIds":[1]}',
    '{"kind":"tokens_taken","takeovers":[null]}',
    '{"kind":"tokens_taken","takeovers":[{"tokenHash":"t","version":"2","streamId":"s"}]}',
    '{"kind":"token_revoked"}',
    '{"kind":"key_revoked"}',
    '{"kind":"key_changed"}',
    '{"kind":"disconnected","disconnect":{"userId":"u"}}',
    '{"kind":"disconnected","disconnect":{"userId":"u","renew":true,"streams":"s"}}',
    '{"kind":"token_extended","extension":{"tokenHash":"t","endsAt":"1"}}',
    '{}',
  ];

  for (const text of texts) assert.equal(parseControlEntry(text), undefined, text);
});

test('an unknown field of a control entry is ignored', () => {
  assert.deepEqual(parseControlEntry('{"kind":"key_revoked","keyId":"k","by":"admin"}'), {
    kind: 'key_revoked',
    keyId: 'k',
  });
});

test('sessionsEnded puts at most 200 sessions into each entry', () => {
  const ids = Array.from({ length: 401 }, (_, index) => String(index).padStart(32, '0'));

  const entries = sessionsEnded(ids);

  const sessionIdsByEntry = entries.map((entry) => ('sessionIds' in entry ? entry.sessionIds : []));
  assert.deepEqual(
    sessionIdsByEntry.map(({ length }) => length),
    [200, 200, 1],
  );
  assert.deepEqual(sessionIdsByEntry.flat(), ids);
  assert.ok(entries.every((entry) => formatControlEntry(entry).length < 65_536));
  assert.deepEqual(sessionsEnded([]), []);
});

test('tokensTaken puts at most 200 takeovers into each entry', () => {
  const takeovers: Takeover[] = Array.from({ length: 201 }, (_, version) => {
    return { tokenHash: 'f'.repeat(64), version, streamId: 'f'.repeat(32) };
  });

  const entries = tokensTaken(takeovers);

  const takeoversByEntry = entries.map((entry) => ('takeovers' in entry ? entry.takeovers : []));
  assert.deepEqual(
    takeoversByEntry.map(({ length }) => length),
    [200, 1],
  );
  assert.deepEqual(takeoversByEntry.flat(), takeovers);
  assert.ok(entries.every((entry) => formatControlEntry(entry).length < 65_536));
});
