import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toClient } from './client.js';

test('a user agent is kept short and printable', () => {
  const of = (userAgent: string) =>
    toClient({ id: 'r', ip: '::1', headers: { 'user-agent': userAgent } }).userAgent;

  assert.equal(of('curl/8\u0000\u001b[31m\u00e9'), 'curl/8[31m');
  assert.equal(of('x'.repeat(9000))?.length, 255);
  assert.equal(of('\u0001'), undefined);
  assert.equal(toClient({ id: 'r', ip: '::1', headers: {} }).userAgent, undefined);
});
