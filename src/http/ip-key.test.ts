import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toIpKey, toNetworkKey } from './ip-key.js';

const cases = [
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['::ffff:c000:201', '192.0.2.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:0DB8:0001:0002::1', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
  ['::', '0:0:0:0::/64'],
  ['2001:db8:1:2:3:4:192.0.2.1', '2001:db8:1:2::/64'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['', 'unknown'],
  ['localhost', 'unknown'],
  ['192.0.2.1, 192.0.2.2', 'unknown'],
  ["'; drop table users; --", 'unknown'],
] as const;

for (const [ip, key] of cases) {
  test(`the IP key of ${JSON.stringify(ip)} is ${key}`, () => {
    assert.equal(toIpKey(ip), key);
  });
}

const networks = [
  ['192.0.2.1', undefined],
  ['2001:db8:1:2::/64', '2001:db8:1::/48'],
  ['2001:db8:1:ffff::/64', '2001:db8:1::/48'],
  ['2001:db8:0:0::/64', '2001:db8:0::/48'],
  ['unknown', undefined],
] as const;

for (const [ipKey, networkKey] of networks) {
  test(`the network key of ${ipKey} is ${networkKey}`, () => {
    assert.equal(toNetworkKey(ipKey), networkKey);
  });
}
