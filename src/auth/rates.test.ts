import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { client } from '../../test/support/servers/auth.js';
import type { Failure } from '../errors.js';
import { Audit } from '../logging/audit.js';
import { type RateName, Rates } from './rates.js';

const names: readonly RateName[] = ['login', 'token', 'streamToken', 'streamOpen'];
const there = { ...client, ipKey: '198.51.100.1' };

function ratesOf(only: RateName) {
  const time = { now: 0 };
  const lines: Record<string, unknown>[] = [];
  const many = { count: 1_000_000, perMs: 1 };
  const rates = new Rates({
    rates: {
      login: many,
      token: many,
      streamToken: many,
      streamOpen: many,
      [only]: { count: 3, perMs: 6000 },
    },
    audit: new Audit({ log: collectingLog(lines) }),
    clock: () => time.now,
  });
  return { rates, time, lines };
}

for (const name of names) {
  test(`${name}: as many as the rate at once, then one each time its share has passed`, () => {
    const { rates, time, lines } = ratesOf(name);
    for (let count = 0; count < 3; count += 1) rates.admit(name, client);

    const refused = (failure: Failure) => {
      assert.equal(failure.name, 'too_many_requests');
      assert.deepEqual(failure.info, { retryAfter: 2 });
      assert.equal(failure.headers['retry-after'], '2');
      return true;
    };
    assert.throws(() => rates.admit(name, client), refused);
    time.now += 1999;
    assert.throws(() => rates.admit(name, client), { name: 'too_many_requests' });
    time.now += 1;
    rates.admit(name, client);
    assert.throws(() => rates.admit(name, client), refused);

    const audited = lines.filter(({ event }) => event === 'excess_rate_limit_exceeded');
    assert.deepEqual(
      audited.map(({ reason }) => reason),
      [name, name, name],
    );
  });

  test(`${name}: another place, another user and other rates are not touched`, () => {
    const { rates } = ratesOf(name);
    for (let count = 0; count < 3; count += 1) rates.admit(name, client, '1');

    assert.throws(() => rates.admit(name, there, '1'), { name: 'too_many_requests' });
    rates.admit(name, client, '2');
    rates.admit(name, there);
    for (const other of names) if (other !== name) rates.admit(other, client, '1');
  });
}
