import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clientIp } from './client-ip.js';

const socket = '198.51.100.9';

// [description, X-Forwarded-For, hops, address]
const cases: readonly (readonly [string, string, number, string])[] = [
  ['without proxies the header is ignored', '192.0.2.1', 0, socket],
  ['one proxy: the last address', '192.0.2.1', 1, '192.0.2.1'],
  ['one proxy: an entry sent by the client is ignored', '10.0.0.1, 192.0.2.1', 1, '192.0.2.1'],
  ['two proxies: the last but one', '10.0.0.1, 192.0.2.1, 203.0.113.5', 2, '192.0.2.1'],
  ['fewer addresses than proxies', '192.0.2.1', 2, socket],
  ['no header', '', 1, socket],
  ['an entry that is not an address', 'unknown', 1, socket],
  ['an address with a port', '192.0.2.1:1234', 1, socket],
  ['an empty entry', '192.0.2.1, ', 1, socket],
  ['IPv6', '2001:db8::1', 1, '2001:db8::1'],
  ['IPv4-mapped IPv6', '::ffff:192.0.2.1', 1, '192.0.2.1'],
  ['IPv4-mapped IPv6, in upper case', '::FFFF:192.0.2.1', 1, '192.0.2.1'],
  ['IPv4-mapped IPv6, in hex', '::ffff:c000:201', 1, '::ffff:c000:201'],
];

for (const [what, forwardedFor, hops, address] of cases) {
  test(`the address of a client: ${what}`, () => {
    assert.equal(clientIp(socket, forwardedFor, hops), address);
  });
}

test('the IPv4-mapped address of a dual-stack socket is returned as IPv4', () => {
  assert.equal(clientIp('::ffff:198.51.100.9', '', 0), '198.51.100.9');
});
