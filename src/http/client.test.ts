import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toClient } from './client.js';

test('a user agent is reduced to 255 printable ASCII characters', () => {
  const toUserAgent = (userAgent: string) =>
    toClient({ id: 'r', ip: '::1', headers: { 'user-agent': userAgent } }).userAgent;

  assert.equal(toUserAgent('curl/8\u0000\u001b[31m\u00e9'), 'curl/8[31m');
  assert.equal(toUserAgent('x'.repeat(9000))?.length, 255);
  assert.equal(toUserAgent('\u0001'), undefined);
  assert.equal(toClient({ id: 'r', ip: '::1', headers: {} }).userAgent, undefined);
});
