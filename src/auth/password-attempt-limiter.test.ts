import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadConfig } from '../config/config.js';
import { Failure } from '../errors.js';
import { PasswordAttemptLimiter } from './password-attempt-limiter.js';

function createLimiter({ failuresBeforeDelay = 5 } = {}) {
  const time = { now: 0 };
  const limiter = new PasswordAttemptLimiter({
    failuresBeforeDelay,
    delayMaxMs: 900_000,
    monotonicClock: () => time.now,
  });
  return { limiter, time };
}

const withoutSession = async () => false;
const withSession = async () => true;

/** Tries wrong passwords from different IPs; returns how many were allowed before a refusal. */
async function spray(
  limiter: PasswordAttemptLimiter,
  count: number,
  userKey = 'ada',
): Promise<number> {
  for (let tried = 0; tried < count; tried += 1) {
    try {
      const ipKey = `192.0.2.${tried}`;
      (await limiter.begin({ userKey, ipKey, hasSession: withoutSession })).settle('wrong');
    } catch (cause) {
      assert.ok(cause instanceof Failure && cause.name === 'too_many_requests');
      return tried;
    }
  }
  return count;
}

test('attempts spread over many IPs are blocked after twenty failures', async () => {
  const { limiter } = createLimiter();

  assert.equal(await spray(limiter, 100), 20);
  assert.equal(await spray(limiter, 10, 'bob'), 10);
});

test('with the highest LOGIN_FREE_FAILURES, failures from one address block only that address', async () => {
  const { passwordAttempts } = loadConfig({ LOGIN_FREE_FAILURES: '19' });
  const { limiter } = createLimiter(passwordAttempts);
  const here = { userKey: 'ada', ipKey: '192.0.2.1', hasSession: withoutSession };

  for (let tried = 0; tried < 19; tried += 1) (await limiter.begin(here)).settle('wrong');

  await assert.rejects(limiter.begin(here), { name: 'too_many_requests' });
  (await limiter.begin({ ...here, ipKey: '198.51.100.7' })).settle('right');
});

test('an IP with a session of the user is allowed while others are blocked', async () => {
  const { limiter } = createLimiter();
  await spray(limiter, 20);
  const here = { userKey: 'ada', ipKey: '198.51.100.7' };

  await assert.rejects(limiter.begin({ ...here, hasSession: withoutSession }), {
    name: 'too_many_requests',
  });
  const guess = await limiter.begin({ ...here, hasSession: withSession });

  assert.equal(guess.failures, 0);
  guess.settle('right');
});

/** Tries wrong passwords from different /64s of a /48; returns how many were allowed before a refusal. */
async function sprayNetwork(
  limiter: PasswordAttemptLimiter,
  network: string,
  count: number,
): Promise<number> {
  for (let tried = 0; tried < count; tried += 1) {
    try {
      const ipKey = `${network}:${tried.toString(16)}::/64`;
      const options = { userKey: 'ada', ipKey, hasSession: withoutSession };
      (await limiter.begin(options)).settle('wrong');
    } catch (cause) {
      assert.ok(cause instanceof Failure && cause.name === 'too_many_requests');
      return tried;
    }
  }
  return count;
}

test('attempts spread over the /64s of one IPv6 /48 are blocked after ten failures; other addresses are not', async () => {
  const { limiter, time } = createLimiter();

  assert.equal(await sprayNetwork(limiter, '2001:db8:1', 100), 10);
  time.now += 1000;
  assert.equal(await sprayNetwork(limiter, '2001:db8:1', 100), 1); // The next delays are 2 s, 4 s and so on.

  const elsewhere = { userKey: 'ada', ipKey: '198.51.100.7', hasSession: withoutSession };
  (await limiter.begin(elsewhere)).settle('right');
  assert.equal(await sprayNetwork(limiter, '2001:db8:2', 5), 5);
});

test('an IP key with a session of the user is allowed while its /48 is blocked', async () => {
  const { limiter } = createLimiter();
  await sprayNetwork(limiter, '2001:db8:1', 10);
  const here = { userKey: 'ada', ipKey: '2001:db8:1:ffff::/64' };

  await assert.rejects(limiter.begin({ ...here, hasSession: withoutSession }), {
    name: 'too_many_requests',
  });

  (await limiter.begin({ ...here, hasSession: withSession })).settle('right');
});

test('when the per-user limiter refuses, the permit of the per-user-and-address limiter is released', async () => {
  const { limiter, time } = createLimiter();
  await spray(limiter, 20);
  const here = { userKey: 'ada', ipKey: '198.51.100.7', hasSession: withoutSession };
  for (let count = 0; count < 50; count += 1) await assert.rejects(limiter.begin(here));

  time.now += 60_000;
  const guess = await limiter.begin(here);

  assert.equal(guess.failures, 0);
  guess.settle('unknown');
});

test('after a hundred consecutive failures one attempt per 15 minutes is allowed', async () => {
  const { limiter, time } = createLimiter();
  const waits: number[] = [];
  for (let tried = 0; tried < 102; ) {
    try {
      const options = { userKey: 'ada', ipKey: `10.0.0.${tried}`, hasSession: withoutSession };
      (await limiter.begin(options)).settle('wrong');
      tried += 1;
    } catch (cause) {
      assert.ok(cause instanceof Failure);
      const waitS = Number(cause.headers['retry-after']);
      waits.push(waitS);
      time.now += waitS * 1000;
    }
  }

  assert.deepEqual(waits.slice(-3), [60, 900, 900]);
});

test('a failed session lookup releases the permit', async () => {
  const { limiter } = createLimiter();
  await spray(limiter, 20);
  const here = { userKey: 'ada', ipKey: '198.51.100.7' };
  const broken = async () => {
    throw new Failure('service_unavailable', 'Cannot ask');
  };

  for (let count = 0; count < 10; count += 1) {
    await assert.rejects(limiter.begin({ ...here, hasSession: broken }), {
      name: 'service_unavailable',
    });
  }
  (await limiter.begin({ ...here, hasSession: withSession })).settle('unknown');
});

test('an aborted attempt gets no permit', async () => {
  const { limiter } = createLimiter();
  const signal = AbortSignal.abort();
  const here = { userKey: 'ada', ipKey: '198.51.100.7', hasSession: withoutSession, signal };

  await assert.rejects(limiter.begin(here), { name: 'AbortError' });
});
