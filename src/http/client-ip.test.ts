import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findClientAddress } from './client-ip.js';

const socket = '198.51.100.9';

// [description, X-Forwarded-For, hops, address]
const addresses: readonly (readonly [string, string, number, string])[] = [
  ['one proxy: the last address', '192.0.2.1', 1, '192.0.2.1'],
  ['one proxy: an entry sent by the client is ignored', '10.0.0.1, 192.0.2.1', 1, '192.0.2.1'],
  ['two proxies: the last but one', '10.0.0.1, 192.0.2.1, 203.0.113.5', 2, '192.0.2.1'],
  ['two proxies: the first of two', '192.0.2.1,203.0.113.5', 2, '192.0.2.1'],
  ['thousands of entries sent by the client', `${',x'.repeat(8000)},192.0.2.1`, 1, '192.0.2.1'],
  ['an address with a port', '192.0.2.1:1234', 1, '192.0.2.1'],
  ['an address with a port, followed by another', '192.0.2.1:1, 203.0.113.5:2', 2, '192.0.2.1'],
  ['IPv6', '2001:db8::1', 1, '2001:db8::1'],
  ['IPv6 in brackets', '[2001:db8::1]', 1, '2001:db8::1'],
  ['IPv6 in brackets, with a port', '[2001:db8::1]:65535', 1, '2001:db8::1'],
  ['IPv4-mapped IPv6', '::ffff:192.0.2.1', 1, '192.0.2.1'],
  ['IPv4-mapped IPv6 in brackets, with a port', '[::ffff:192.0.2.1]:80', 1, '192.0.2.1'],
  ['IPv4-mapped IPv6, in upper case', '::FFFF:192.0.2.1', 1, '192.0.2.1'],
  ['IPv4-mapped IPv6, in hex', '::ffff:c000:201', 1, '::ffff:c000:201'],
];

for (const [what, forwardedFor, hops, ip] of addresses) {
  test(`X-Forwarded-For gives the address of the client: ${what}`, () => {
    assert.deepEqual(
      findClientAddress(socket, () => forwardedFor, hops),
      { ip },
    );
  });
}

const tooFew = 'fewer addresses than TRUST_PROXY_HOPS';

// [description, X-Forwarded-For, hops, problem]
const problems: readonly (readonly [string, string, number, string])[] = [
  ['no header', '', 1, 'missing'],
  ['no header, two proxies', '', 2, 'missing'],
  ['one address, two proxies', '192.0.2.1', 2, tooFew],
  ['a comma, three proxies', ',', 3, tooFew],
  ['an empty entry', '192.0.2.1, ', 1, 'not an address'],
  ['an empty first entry', ',192.0.2.1', 2, 'not an address'],
  ['a word', 'unknown', 1, 'not an address'],
  ['a host name', 'client.example:80', 1, 'not an address'],
  ['an address with an empty port', '192.0.2.1:', 1, 'not an address'],
  ['an address with a port of six digits', '192.0.2.1:123456', 1, 'not an address'],
  ['IPv6 with an open bracket', '[2001:db8::1', 1, 'not an address'],
  ['empty brackets', '[]:80', 1, 'not an address'],
];

for (const [what, forwardedFor, hops, problem] of problems) {
  test(`without a usable X-Forwarded-For the address of the proxy is used: ${what}`, () => {
    assert.deepEqual(
      findClientAddress(socket, () => forwardedFor, hops),
      { ip: socket, problem },
    );
  });
}

test('without proxies X-Forwarded-For is not read', () => {
  const read = () => assert.fail('X-Forwarded-For was read');

  assert.deepEqual(findClientAddress(socket, read, 0), { ip: socket });
});

test('the IPv4-mapped address of a dual-stack socket is returned as IPv4', () => {
  const found = findClientAddress('::ffff:198.51.100.9', () => '', 0);

  assert.deepEqual(found, { ip: '198.51.100.9' });
});
