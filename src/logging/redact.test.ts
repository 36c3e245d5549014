import assert from 'node:assert/strict';
import { test } from 'node:test';
import { redact } from './redact.js';

const redacted = '[Redacted]';

test('fields with the name of a secret are redacted down to the fourth level', () => {
  const fields = {
    password: 'hunter2',
    one: { token: 'hunter2', kept: 1 },
    req: { headers: { authorization: 'hunter2', host: 'localhost' } },
    list: [{ cookie: 'hunter2' }],
    a: { b: { c: { accessToken: 'hunter2' } } },
  };

  assert.deepEqual(redact(fields), {
    password: redacted,
    one: { token: redacted, kept: 1 },
    req: { headers: { authorization: redacted, host: 'localhost' } },
    list: [{ cookie: redacted }],
    a: { b: { c: { accessToken: redacted } } },
  });
  assert.equal(fields.one.token, 'hunter2', 'the input is not modified');
});

test('fields without a secret are returned as the same object', () => {
  const fields = { requestId: 'r', nested: { list: [1, null, undefined] }, error: new Error('x') };

  assert.equal(redact(fields), fields);
});

test('fields with a circular reference are redacted', () => {
  const fields: Record<string, unknown> = { streamToken: 'hunter2' };
  fields['self'] = fields;

  const safe = redact(fields) as { streamToken: string; self: { streamToken: string } };

  assert.equal(safe.streamToken, redacted);
  assert.equal(safe.self.streamToken, redacted);
});
