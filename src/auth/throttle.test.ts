import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failure } from '../errors.js';
import { Throttle } from './throttle.js';

function createThrottle() {
  const time = { now: 0 };
  const throttle = new Throttle({
    freeFailures: 5,
    delayMaxMs: 900_000,
    monotonicClock: () => time.now,
  });
  return { throttle, time };
}

const withoutSession = async () => false;
const withSession = async () => true;

/** Tries wrong passwords from different IPs; returns how many were allowed before a refusal. */
async function spray(throttle: Throttle, count: number, userKey = 'ada'): Promise<number> {
  for (let tried = 0; tried < count; tried += 1) {
    try {
      const ipKey = `192.0.2.${tried}`;
      (await throttle.begin({ userKey, ipKey, hasSession: withoutSession })).settle('wrong');
    } catch (cause) {
      assert.ok(cause instanceof Failure && cause.name === 'too_many_requests');
      return tried;
    }
  }
  return count;
}

test('attempts spread over many IPs are blocked after twenty failures', async () => {
  const { throttle } = createThrottle();

  assert.equal(await spray(throttle, 100), 20);
  assert.equal(await spray(throttle, 10, 'bob'), 10);
});

test('an IP with a session of the user is allowed while others are blocked', async () => {
  const { throttle } = createThrottle();
  await spray(throttle, 20);
  const here = { userKey: 'ada', ipKey: '198.51.100.7' };

  await assert.rejects(throttle.begin({ ...here, hasSession: withoutSession }), {
    name: 'too_many_requests',
  });
  const guess = await throttle.begin({ ...here, hasSession: withSession });

  assert.equal(guess.failures, 0);
  guess.settle('right');
});

test('a refusal by the limiter per user releases the permit of the limiter per user and IP', async () => {
  const { throttle, time } = createThrottle();
  await spray(throttle, 20);
  const here = { userKey: 'ada', ipKey: '198.51.100.7', hasSession: withoutSession };
  for (let count = 0; count < 50; count += 1) await assert.rejects(throttle.begin(here));

  time.now += 60_000;
  const guess = await throttle.begin(here);

  assert.equal(guess.failures, 0);
  guess.settle('unknown');
});

test('after a hundred consecutive failures one attempt per 15 minutes is allowed', async () => {
  const { throttle, time } = createThrottle();
  const waits: number[] = [];
  for (let tried = 0; tried < 102; ) {
    try {
      const options = { userKey: 'ada', ipKey: `10.0.0.${tried}`, hasSession: withoutSession };
      (await throttle.begin(options)).settle('wrong');
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
  const { throttle } = createThrottle();
  await spray(throttle, 20);
  const here = { userKey: 'ada', ipKey: '198.51.100.7' };
  const broken = async () => {
    throw new Failure('service_unavailable', 'Cannot ask');
  };

  for (let count = 0; count < 10; count += 1) {
    await assert.rejects(throttle.begin({ ...here, hasSession: broken }), {
      name: 'service_unavailable',
    });
  }
  (await throttle.begin({ ...here, hasSession: withSession })).settle('unknown');
});

test('an aborted attempt gets no permit', async () => {
  const { throttle } = createThrottle();
  const signal = AbortSignal.abort();
  const here = { userKey: 'ada', ipKey: '198.51.100.7', hasSession: withoutSession, signal };

  await assert.rejects(throttle.begin(here), { name: 'AbortError' });
});
