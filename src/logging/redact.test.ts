import assert from 'node:assert/strict';
import { test } from 'node:test';
import { redact } from './redact.js';

const shown = '[Redacted]';

test('what is called like a secret is not shown, down to the fourth level', () => {
  const fields = {
    password: 'hunter2',
    one: { token: 'hunter2', kept: 1 },
    req: { headers: { authorization: 'hunter2', host: 'localhost' } },
    list: [{ cookie: 'hunter2' }],
    a: { b: { c: { accessToken: 'hunter2' } } },
  };

  assert.deepEqual(redact(fields), {
    password: shown,
    one: { token: shown, kept: 1 },
    req: { headers: { authorization: shown, host: 'localhost' } },
    list: [{ cookie: shown }],
    a: { b: { c: { accessToken: shown } } },
  });
  assert.equal(fields.one.token, 'hunter2', 'what was handed in stays as it is');
});

test('without a secret they are the very same fields', () => {
  const fields = { requestId: 'r', nested: { list: [1, null, undefined] }, error: new Error('x') };

  assert.equal(redact(fields), fields);
});

test('what refers to itself is no trouble', () => {
  const fields: Record<string, unknown> = { streamToken: 'hunter2' };
  fields['self'] = fields;

  const safe = redact(fields) as { streamToken: string; self: { streamToken: string } };

  assert.equal(safe.streamToken, shown);
  assert.equal(safe.self.streamToken, shown);
});
