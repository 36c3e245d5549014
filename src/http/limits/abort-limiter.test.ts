import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AbortLimiter } from './abort-limiter.js';
import { abortRate } from './limits.js';

const tooMany = { name: 'too_many_requests' };

function createLimiter() {
  const time = { now: 0 };
  return { time, limiter: new AbortLimiter(() => time.now) };
}

test('an address that has aborted too many requests is refused, others are not', () => {
  const { limiter, time } = createLimiter();
  const client = { ip: '192.0.2.1' };
  for (let count = 0; count < abortRate.count; count += 1) {
    limiter.check(client);
    limiter.countAborted(client);
  }

  assert.throws(() => limiter.check(client), tooMany);
  limiter.check({ ip: '192.0.2.2' });

  time.now += abortRate.perMs / abortRate.count;
  limiter.check(client);
});

test('the addresses of an IPv6 /48 may abort ten times as many requests together', () => {
  const { limiter } = createLimiter();
  const getClient = (index: number) => ({ ip: `2001:db8:1:${index.toString(16)}::1` });
  for (let index = 0; index < 10 * abortRate.count; index += 1) {
    limiter.check(getClient(index));
    limiter.countAborted(getClient(index));
  }

  assert.throws(() => limiter.check(getClient(0xffff)), tooMany);
  limiter.check({ ip: '2001:db8:2::1' });
});
