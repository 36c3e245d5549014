import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import {
  generateIssuerKey,
  type IssuerKeyPair,
  JwksServer,
} from '../../../test/support/servers/issuer.js';
import { until } from '../../../test/support/until.js';
import { coolDownMs, keysLifeMs, RemoteKeys, refreshMs } from './remote-keys.js';

const [oldKey, newKey] = await Promise.all([generateIssuerKey('old'), generateIssuerKey('new')]);

const isUnavailable = { name: 'service_unavailable', status: 503, reason: 'jwks' };
const isUnknown = { message: 'Unknown key' };

interface Options {
  readonly served?: readonly IssuerKeyPair[];
  readonly timeoutMs?: number;
}

/** Opens the keys of a new server, with a clock that stands still. All are closed after the test. */
async function start(t: TestContext, { served = [oldKey], timeoutMs = 30_000 }: Options = {}) {
  const server = await JwksServer.start(t);
  server.respondWithKeys(...served);
  const clock = { now: 0 };
  const outcomes: string[] = [];
  const keys = new RemoteKeys({
    ...{ url: server.url, ca: server.ca, algorithms: ['ES256'], timeoutMs },
    onFetched: (outcome) => outcomes.push(outcome),
    monotonicClock: () => clock.now,
  });
  t.after(() => keys.close());
  /** Returns the number of keys that a token with this `kid` may be signed with. */
  const find = async (keyId: string | undefined, signal?: AbortSignal) => {
    const found = await keys.find({ algorithm: 'ES256', keyId }, signal);
    return found.length;
  };
  /** Calls `refresh` and waits for the outcome of the fetch that it starts. */
  const refresh = async () => {
    const { length } = outcomes;
    keys.refresh();
    await until(() => outcomes.length > length);
  };
  return { server, keys, clock, outcomes, find, refresh };
}

test('requests that need the keys at the same time share one fetch', async (t) => {
  const { server, find } = await start(t);

  const counts = await Promise.all(Array.from({ length: 50 }, () => find('old')));

  assert.ok(counts.every((count) => count === 1));
  assert.equal(server.requests, 1);
});

test('requests that arrive during a fetch of the timer share this fetch', async (t) => {
  const { server, keys, find } = await start(t);

  keys.refresh();
  keys.refresh();

  assert.equal(await find('old'), 1);
  assert.equal(server.requests, 1);
});

test('keys are fetched again after five minutes, and requests do not wait for that fetch', async (t) => {
  const { server, clock, keys, find } = await start(t);
  await find('old');
  clock.now = refreshMs - 1;
  keys.refresh();
  assert.equal(server.requests, 1);
  server.respondWith(() => {}); // The second fetch hangs.

  clock.now = refreshMs;
  keys.refresh();
  await until(() => server.requests === 2);

  assert.equal(await find('old'), 1);
});

test('a key that the issuer has removed is no longer used after the next fetch', async (t) => {
  const { server, clock, find, refresh } = await start(t, { served: [oldKey, newKey] });
  await find('old');
  server.respondWithKeys(newKey);
  clock.now = refreshMs;

  await refresh();

  await assert.rejects(find('old'), isUnknown);
  assert.equal(await find('new'), 1);
});

test('a request with an unknown key causes one fetch, which finds the new key of the issuer', async (t) => {
  const { server, find } = await start(t);
  await find('old');
  server.respondWithKeys(oldKey, newKey);

  const counts = await Promise.all([find('new'), find('new'), find('old')]);

  assert.deepEqual(counts, [1, 1, 1]);
  assert.equal(server.requests, 2);
});

test('unknown keys cause at most one fetch per 30 s', async (t) => {
  const { server, clock, find } = await start(t);
  await find('old');

  for (const kid of ['a', 'b', 'c']) await assert.rejects(find(kid), isUnknown);
  clock.now = coolDownMs - 1;
  server.respondWithKeys(newKey);
  await assert.rejects(find('new'), isUnknown);
  assert.equal(server.requests, 2);

  clock.now = coolDownMs;
  assert.equal(await find('new'), 1);
  assert.equal(server.requests, 3);
});

test('a new key is found even if the last regular fetch was a moment ago', async (t) => {
  const { server, clock, find, refresh } = await start(t);
  await find('old');
  clock.now = refreshMs;
  await refresh();
  server.respondWithKeys(newKey);

  assert.equal(await find('new'), 1);
});

test('a request with an unknown key waits for a fetch that starts after the arrival of the request', async (t) => {
  const { server, clock, keys, find } = await start(t);
  await find('old');
  const release = new Promise<() => void>((resolve) => {
    server.respondWith((response) => resolve(() => response.end(toText(oldKey))));
  });
  clock.now = refreshMs;
  keys.refresh();
  const respond = await release;
  server.respondWithKeys(newKey);

  const finding = find('new');
  respond();

  assert.equal(await finding, 1);
});

test('while no key is known, requests get 503 and fetches are 30 s apart', async (t) => {
  const { server, clock, outcomes, find, keys } = await start(t);
  await server.stop();

  await assert.rejects(find('old'), { ...isUnavailable, retryAfterMs: coolDownMs });
  clock.now = coolDownMs - 1;
  keys.refresh();
  await assert.rejects(find('old'), { ...isUnavailable, retryAfterMs: 1 });
  assert.deepEqual(outcomes, ['unreachable']);

  await server.startAgain();
  clock.now = coolDownMs;
  assert.equal(await find('old'), 1);
});

test('old keys are used for an hour while the JWKS cannot be fetched', async (t) => {
  const { server, clock, find, refresh } = await start(t);
  await find('old');
  await server.stop();
  for (clock.now = refreshMs; clock.now < keysLifeMs; clock.now += refreshMs) {
    await refresh();
    assert.equal(await find('old'), 1);
  }

  clock.now = keysLifeMs - 1;
  assert.equal(await find('old'), 1);
  clock.now = keysLifeMs;
  await assert.rejects(find('old'), isUnavailable);

  await server.startAgain();
  clock.now += coolDownMs;
  assert.equal(await find('old'), 1);
});

test('an unknown key gets 503 while the JWKS cannot be fetched', async (t) => {
  const { server, clock, find } = await start(t);
  await find('old');
  await server.stop();

  await assert.rejects(find('new'), isUnavailable);
  clock.now = coolDownMs - 1;
  await assert.rejects(find('new'), isUnavailable);

  await server.startAgain();
  clock.now = coolDownMs;
  await assert.rejects(find('new'), isUnknown);
});

const unusableResponses: readonly [string, string, (server: JwksServer) => void][] = [
  ['HTML', 'invalid', (server) => server.respondWithText('<!doctype html>')],
  ['no key', 'invalid', (server) => server.respondWithText('{"keys":[]}')],
  ['too many bytes', 'too_large', (server) => server.respondWithText(' '.repeat(300_000))],
  ['an error', 'status', (server) => server.respondWith((r) => r.writeHead(500).end())],
];

for (const [what, outcome, respond] of unusableResponses) {
  test(`a JWKS that becomes ${what} does not replace the last keys`, async (t) => {
    const { server, clock, outcomes, find, refresh } = await start(t);
    await find('old');
    respond(server);
    clock.now = refreshMs;

    await refresh();

    assert.deepEqual(outcomes, ['ok', outcome]);
    assert.equal(await find('old'), 1);
  });
}

test('a fetch that hangs fails after its time limit, so that the next fetch can start', async (t) => {
  const { server, clock, outcomes, find } = await start(t, { timeoutMs: 2000 });
  server.respondWith(() => {});

  await assert.rejects(find('old'), isUnavailable);
  assert.deepEqual(outcomes, ['timeout']);

  server.respondWithKeys(oldKey);
  clock.now = coolDownMs;
  assert.equal(await find('old'), 1);
});

test('a request that is aborted stops waiting, and the others get the keys', async (t) => {
  const { server, find } = await start(t);
  const release = new Promise<() => void>((resolve) => {
    server.respondWith((response) => resolve(() => response.end(toText(oldKey))));
  });
  const controller = new AbortController();
  const reason = new Error('client disconnected');

  const aborted = find('old', controller.signal);
  const patient = find('old');
  const respond = await release;
  controller.abort(reason);

  await assert.rejects(aborted, reason);
  respond();
  assert.equal(await patient, 1);
  assert.equal(server.requests, 1);
});

test('a token without a kid is verified with all keys of the issuer, at most four', async (t) => {
  const four = Array.from({ length: 4 }, () => oldKey);
  const { find } = await start(t, { served: four });
  const { find: findOfFive } = await start(t, { served: [...four, oldKey] });

  assert.equal(await find(undefined), 4);
  await assert.rejects(findOfFive(undefined), { message: 'The header selects too many keys' });
});

test('closing aborts a running fetch without a report, and later requests get 503', async (t) => {
  const { server, keys, clock, outcomes, find } = await start(t);
  const closed = new Promise((resolve) => {
    server.respondWith((response) => {
      response.on('close', resolve);
      keys.close();
    });
  });

  await assert.rejects(find('old'), isUnavailable);
  await closed;
  keys.close();
  clock.now = coolDownMs;
  await assert.rejects(find('old'), isUnavailable);
  assert.deepEqual([outcomes, server.requests], [[], 1]);
});

function toText(...keys: readonly IssuerKeyPair[]): string {
  return JSON.stringify({ keys: keys.map(({ jwk }) => jwk) });
}
