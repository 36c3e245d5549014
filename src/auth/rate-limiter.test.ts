import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { client } from '../../test/support/servers/auth.js';
import type { Failure } from '../errors.js';
import { Audit } from '../logging/audit.js';
import { RateLimiter, type RateName } from './rate-limiter.js';

const names: readonly RateName[] = ['login', 'token', 'streamToken', 'streamOpen', 'invalidToken'];
const otherClient = { ...client, ipKey: '198.51.100.1' };

function createRateLimiter(only: RateName) {
  const time = { now: 0 };
  const lines: Record<string, unknown>[] = [];
  const unlimited = { count: 1_000_000, perMs: 1 };
  const rateLimiter = new RateLimiter({
    rates: {
      login: unlimited,
      token: unlimited,
      streamToken: unlimited,
      streamOpen: unlimited,
      invalidToken: unlimited,
      [only]: { count: 3, perMs: 6000 },
    },
    audit: new Audit({ log: collectingLog(lines) }),
    monotonicClock: () => time.now,
  });
  return { rateLimiter, time, lines };
}

for (const name of names) {
  test(`${name}: three requests in 6 s may arrive at once, then one every 2 s`, () => {
    const { rateLimiter, time, lines } = createRateLimiter(name);
    for (let count = 0; count < 3; count += 1) rateLimiter.admit(name, client);

    const refused = (failure: Failure) => {
      assert.equal(failure.name, 'too_many_requests');
      assert.deepEqual(failure.info, { retryAfter: 2 });
      assert.equal(failure.headers['retry-after'], '2');
      return true;
    };
    assert.throws(() => rateLimiter.admit(name, client), refused);
    time.now += 1999;
    assert.throws(() => rateLimiter.admit(name, client), { name: 'too_many_requests' });
    time.now += 1;
    rateLimiter.admit(name, client);
    assert.throws(() => rateLimiter.admit(name, client), refused);

    const audited = lines.filter(({ event }) => event === 'excess_rate_limit_exceeded');
    assert.deepEqual(
      audited.map(({ reason }) => reason),
      [name, name, name],
    );
  });

  test(`${name}: other IP keys, other users and other rates are unaffected`, () => {
    const { rateLimiter } = createRateLimiter(name);
    for (let count = 0; count < 3; count += 1) rateLimiter.admit(name, client, '1');

    assert.throws(() => rateLimiter.admit(name, otherClient, '1'), { name: 'too_many_requests' });
    rateLimiter.admit(name, client, '2');
    rateLimiter.admit(name, otherClient);
    for (const other of names) if (other !== name) rateLimiter.admit(other, client, '1');
  });
}

/** Returns a client in the /48 2001:db8:<network>, in a /64 of its own. */
const createClientIn = (network: number, subnet: number) => ({
  ...client,
  ipKey: `2001:db8:${network}:${subnet}::/64`,
});

test('the /64s of an IPv6 /48 may together make ten times as many requests as each of them', () => {
  const { rateLimiter, time } = createRateLimiter('login');
  const admit = (network: number, subnet: number) =>
    rateLimiter.admit('login', createClientIn(network, subnet));

  for (let subnet = 0; subnet < 30; subnet += 1) admit(1, subnet);

  assert.throws(() => admit(1, 30), { name: 'too_many_requests' });
  admit(2, 30);
  time.now += 200; // A tenth of the time after which a /64 may make another request.
  admit(1, 31);
  assert.throws(() => admit(1, 32), { name: 'too_many_requests' });
});

test('refused requests of a /64 do not count for its /48', () => {
  const { rateLimiter } = createRateLimiter('login');
  const admit = (subnet: number) => rateLimiter.admit('login', createClientIn(1, subnet));
  for (let count = 0; count < 3; count += 1) admit(0);
  for (let count = 0; count < 50; count += 1)
    assert.throws(() => admit(0), { name: 'too_many_requests' });

  for (let subnet = 1; subnet <= 27; subnet += 1) admit(subnet);

  assert.throws(() => admit(28), { name: 'too_many_requests' });
});

for (const { ipKey, limit } of [
  { ipKey: client.ipKey, limit: 3 },
  { ipKey: '2001:db8:1:1::/64', limit: 3 },
]) {
  test(`a request of ${ipKey} does not count after its count was undone`, () => {
    const { rateLimiter } = createRateLimiter('invalidToken');
    const admit = () => rateLimiter.admit('invalidToken', { ...client, ipKey });

    for (let count = 0; count < 100; count += 1) admit()();
    for (let count = 0; count < limit; count += 1) admit();

    assert.throws(admit, { name: 'too_many_requests' });
  });
}
