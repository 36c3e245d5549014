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

test('a request whose count was undone does not count', () => {
  const { rateLimiter } = createRateLimiter('invalidToken');
  const admit = () => rateLimiter.admit('invalidToken', client);

  for (let count = 0; count < 100; count += 1) admit()();
  for (let count = 0; count < 3; count += 1) admit();

  assert.throws(admit, { name: 'too_many_requests' });
});
