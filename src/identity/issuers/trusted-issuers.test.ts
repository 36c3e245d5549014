import assert from 'node:assert/strict';
import { generateKeyPairSync, randomBytes, sign as signBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { forgePublic, forgeSecret } from '../../../test/support/clients/forged-tokens.js';
import { collectingLog } from '../../../test/support/recording/collecting-log.js';
import { generateIssuerKey, JwksServer } from '../../../test/support/servers/issuer.js';
import type { TrustedIssuer } from '../../config/trusted-issuers.js';
import { Failure } from '../../errors.js';
import { noRights } from '../../events/topic-rights.js';
import { WarningAggregator } from '../../logging/warning-aggregator.js';
import { TrustedIssuers } from './trusted-issuers.js';

const second = 1000;
const hour = 3600 * second;
const day = 24 * hour;
const start = Date.parse('2026-11-30T12:00:00Z');
const startSeconds = start / second;

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const otherRsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const publicPem = rsa.publicKey.export({ type: 'spki', format: 'pem' }).toString();
const secret = randomBytes(32);

const withPublicKey: TrustedIssuer = {
  issuer: 'https://id.example.com/',
  audiences: ['herald', 'herald-mobile'],
  algorithms: ['RS256'],
  keys: { kind: 'publicKeys', pems: [publicPem] },
  userClaim: 'sub',
  userPrefix: 'id:',
  rightsClaim: undefined,
  rights: noRights,
};
const withSecret: TrustedIssuer = {
  issuer: 'shop',
  audiences: ['herald'],
  algorithms: ['HS256'],
  keys: { kind: 'secrets', secrets: [secret] },
  userClaim: 'user_id',
  userPrefix: '',
  rightsClaim: 'https://herald.example/rights',
  rights: new Map([['news', ['listen']]]),
};

const header = { alg: 'RS256', typ: 'JWT' };
const claims = {
  ...{ iss: withPublicKey.issuer, aud: 'herald', sub: 'auth0|5f7c8ec7c33c6c004bbafe82' },
  ...{ iat: startSeconds - 60, exp: startSeconds + 3600 },
};
const shopClaims = { ...claims, iss: 'shop', user_id: '42' };

/** Signs with the key of `withPublicKey`. */
const sign = (changes: object = {}, headerChanges: object = {}) =>
  forgePublic({ ...header, ...headerChanges }, { ...claims, ...changes }, rsa.privateKey);
const without = (name: string) =>
  Object.fromEntries(Object.entries(claims).filter(([key]) => key !== name));
const signOnly = (payload: unknown) => forgePublic(header, payload, rsa.privateKey);

interface Options {
  readonly tokenLifeMaxMs?: number;
  readonly clockToleranceMs?: number;
  readonly fetchTimeoutMs?: number;
}

/** Opens issuers with clocks that stand still. They are closed after the test. */
async function open(t: TestContext, issuers: readonly TrustedIssuer[], options: Options = {}) {
  const clock = { now: start };
  const lines: Record<string, unknown>[] = [];
  const fetches: string[] = [];
  const warnings = new WarningAggregator({
    log: collectingLog(lines),
    monotonicClock: () => clock.now,
  });
  const trusted = await TrustedIssuers.open({
    ...{ issuers, warnings, tokenLifeMaxMs: day, clockToleranceMs: 5000, fetchTimeoutMs: 30_000 },
    onFetched: (issuer, outcome) => fetches.push(`${issuer} ${outcome}`),
    wallClock: () => clock.now,
    monotonicClock: () => clock.now,
    ...options,
  });
  t.after(() => trusted.close());
  return { trusted, clock, lines, fetches, warnings };
}

const isInvalid = { name: 'invalid_token', status: 401 };
const isExpired = { name: 'expired_token', status: 401 };
const isUnavailable = { name: 'service_unavailable', status: 503 };

test('a token of a trusted issuer identifies its user', async (t) => {
  const { trusted } = await open(t, [withSecret, withPublicKey]);
  const token = sign({ sid: 'web-7f' });

  assert.equal(trusted.isForeign(token), true);
  assert.deepEqual(await trusted.verify(token), {
    userId: 'id:auth0|5f7c8ec7c33c6c004bbafe82',
    issuer: 'https://id.example.com/',
    sessionLabel: 'web-7f',
    issuedAt: start - 60 * second,
    expiresAt: start + hour,
    rights: noRights,
  });
});

test('a token signed with a shared secret identifies its user by the configured claim', async (t) => {
  const { trusted } = await open(t, [withPublicKey, withSecret]);

  const { userId } = await trusted.verify(forgeSecret({ alg: 'HS256' }, shopClaims, secret));

  assert.equal(userId, '42');
});

test('the rights of a token are those of its issuer and those of its rights claim', async (t) => {
  const { trusted } = await open(t, [withSecret]);
  const claim = 'https://herald.example/rights';
  const rightsOf = async (claims: object) => {
    const token = forgeSecret({ alg: 'HS256' }, { ...shopClaims, ...claims }, secret);
    return Object.fromEntries((await trusted.verify(token)).rights);
  };

  assert.deepEqual(await rightsOf({}), { news: ['listen'] });
  assert.deepEqual(await rightsOf({ [claim]: {} }), { news: ['listen'] });
  assert.deepEqual(await rightsOf({ [claim]: { news: ['history'], 'a:*': ['presence'] } }), {
    news: ['listen', 'history'],
    'a:*': ['presence'],
  });
});

test('an invalid rights claim allows nothing, with a warning, and does not refuse the token', async (t) => {
  const { trusted, lines, warnings } = await open(t, [withSecret]);
  const claim = 'https://herald.example/rights';

  for (const value of [null, 'news', { 'a*': ['listen'] }, { a: ['listen'], b: ['all'] }]) {
    const token = forgeSecret({ alg: 'HS256' }, { ...shopClaims, [claim]: value }, secret);
    const { userId, rights } = await trusted.verify(token);
    assert.deepEqual([userId, Object.fromEntries(rights)], ['42', { news: ['listen'] }]);
  }

  warnings.flush();
  const phrase = 'the rights claim of a trusted issuer is not valid and allows nothing';
  assert.deepEqual(
    lines.map((line) => [line['phrase'], line['level'], line['issuer'], line['repeated']]),
    [
      [phrase, 'warn', 'shop', undefined],
      [phrase, 'warn', 'shop', 3],
    ],
  );
});

test('a token without iat has no time of issue', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);

  const { issuedAt, expiresAt } = await trusted.verify(signOnly(without('iat')));

  assert.equal(issuedAt, undefined);
  assert.equal(expiresAt, start + hour);
});

test('times with fractions of a second are rounded down to a millisecond', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);
  const times = { iat: startSeconds - 1.0001, exp: startSeconds + 1.9999 };

  const { issuedAt, expiresAt } = await trusted.verify(sign(times));

  assert.deepEqual([issuedAt, expiresAt], [start - 1001, start + 1999]);
});

const sessionLabels: readonly [unknown, string][] = [
  [undefined, ''],
  ['', ''],
  ['x'.repeat(255), 'x'.repeat(255)],
  ['x'.repeat(256), ''],
  [7, ''],
  [null, ''],
  [['web'], ''],
];

test('the claim sid is the session label if it is a text of at most 255 characters', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);

  for (const [sid, expected] of sessionLabels) {
    const { sessionLabel } = await trusted.verify(sign({ sid }));
    assert.equal(sessionLabel, expected);
  }
});

const audiences = ['herald', 'herald-mobile', ['other', 'herald'], ['herald-mobile']];

test('a token is accepted if one of its audiences is configured', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);

  for (const aud of audiences) await trusted.verify(sign({ aud }));
});

test('key references in the header of a valid token are ignored', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);
  const jwk = otherRsa.publicKey.export({ format: 'jwk' });
  const references = { jku: 'https://evil.example/keys', x5u: 'https://evil.example/cert' };

  await trusted.verify(sign({}, { ...references, jwk, x5c: ['AAAA'], kid: 'unknown' }));
});

/** Creates tokens that the issuer has not signed, or has signed with another algorithm. */
function createForgedTokens(): readonly (readonly [string, string])[] {
  const [head = '', payload = '', signature = ''] = sign().split('.');
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const forge = (changes: object) =>
    forgePublic({ ...header, ...changes }, claims, otherRsa.privateKey);
  const jwk = otherRsa.publicKey.export({ format: 'jwk' });
  const unsigned = (alg: unknown) => `${encode({ ...header, alg })}.${payload}.`;
  const signed = `${encode({ ...header, alg: 'PS256' })}.${payload}`;
  const pssKey = { key: rsa.privateKey, padding: 6, saltLength: 32 };
  const pssSignature = signBytes('sha256', Buffer.from(signed), pssKey).toString('base64url');
  return [
    ['a token without a signature', `${head}.${payload}.`],
    ['a token of two parts', `${head}.${payload}`],
    ['a token of four parts', `${sign()}.${signature}`],
    ['a token of five parts', `${head}.${payload}.${signature}.a.b`],
    ['a token with a line break', `${sign()}\n`],
    ['another payload', `${head}.${encode({ ...claims, sub: 'admin' })}.${signature}`],
    ['a header that is not JSON', forgePublic('{', claims, rsa.privateKey)],
    ['a header that is null', forgePublic('null', claims, rsa.privateKey)],
    ...['none', 'None', 'NONE', '', null, 7, ['RS256']].map(
      (alg) => [`alg ${JSON.stringify(alg)}`, unsigned(alg)] as const,
    ),
    ['no alg', forgePublic({ typ: 'JWT' }, claims, rsa.privateKey)],
    ['HS256 with the public key', forgeSecret({ alg: 'HS256' }, claims, Buffer.from(publicPem))],
    [
      'HS256 with the public key without its line break',
      forgeSecret({ alg: 'HS256' }, claims, Buffer.from(publicPem.trim())),
    ],
    [
      'HS256 with the public key in DER',
      forgeSecret({ alg: 'HS256' }, claims, rsa.publicKey.export({ type: 'spki', format: 'der' })),
    ],
    ['HS256 with an empty secret', forgeSecret({ alg: 'HS256' }, claims, Buffer.alloc(0))],
    ['the secret of another issuer', forgeSecret({ alg: 'HS256' }, claims, secret)],
    [
      'RS256 in the name of an issuer with a secret',
      forgePublic(header, shopClaims, rsa.privateKey),
    ],
    ['another key', forge({})],
    ['another key with its own JWK', forge({ jwk })],
    ['another key with its URL', forge({ jku: 'https://evil.example/keys', kid: 'evil' })],
    ['another key with the URL of a certificate', forge({ x5u: 'https://evil.example/cert' })],
    ['another key with a certificate', forge({ x5c: [publicPem] })],
    ['another algorithm of the same key', `${signed}.${pssSignature}`],
    ['RS256 declared as RS512', sign({}, { alg: 'RS512' })],
    ['crit', sign({}, { crit: ['exp'], exp: 1 })],
    ['crit with b64', sign({}, { crit: ['b64'], b64: true })],
    ['crit that is empty', sign({}, { crit: [] })],
    ['crit that is null', sign({}, { crit: null })],
    ['a kid that is no text', sign({}, { kid: 7 })],
  ];
}

const malformedClaims: readonly (readonly [string, string])[] = [
  ['a payload that is not JSON', signOnly('{"iss":')],
  ['a payload that is a list', signOnly([claims])],
  ...['aud', 'exp', 'iss', 'sub'].map((name) => [`no ${name}`, signOnly(without(name))] as const),
  ...[null, '', 'Herald', 'herald ', 'heral', [], ['other'], [['herald']], { 0: 'herald' }].map(
    (aud) => [`aud ${JSON.stringify(aud)}`, sign({ aud })] as const,
  ),
  ...[null, String(claims.exp), true, [claims.exp]].map(
    (exp) => [`exp ${JSON.stringify(exp)}`, sign({ exp })] as const,
  ),
  ['an infinite exp', signOnly(JSON.stringify(claims).replace(/"exp":\d+/, '"exp":1e999'))],
  ['an infinite iat', signOnly(JSON.stringify(claims).replace(/"iat":\d+/, '"iat":1e999'))],
  ...[null, String(claims.iat), [claims.iat]].map(
    (iat) => [`iat ${JSON.stringify(iat)}`, sign({ iat })] as const,
  ),
  ['a life of zero', sign({ iat: claims.exp })],
  ['an iat after exp', sign({ iat: claims.exp + 1 })],
  ['nbf that is a text', sign({ nbf: '0' })],
];

test('a forged token is refused with invalid_token', async (t) => {
  const { trusted, fetches } = await open(t, [withPublicKey, withSecret]);
  await trusted.verify(sign());

  for (const [fault, token] of createForgedTokens()) {
    await assert.rejects(trusted.verify(token), isInvalid, fault);
  }
  assert.deepEqual(fetches, []);
});

test('a signed token with malformed claims is refused with invalid_token', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);

  for (const [fault, token] of malformedClaims) {
    await assert.rejects(trusted.verify(token), isInvalid, fault);
  }
});

const otherIssuers = [
  'https://id.example.com',
  'https://ID.example.com/',
  'HTTPS://id.example.com/',
];

const issuerName = withPublicKey.issuer;
// [reason in the log, issuer in the log, token]
const refusals: readonly (readonly [string, string | undefined, string])[] = [
  ['signature', issuerName, forgePublic(header, claims, otherRsa.privateKey)],
  ['algorithm', issuerName, sign({}, { alg: 'RS512' })],
  ['algorithm', 'shop', forgePublic(header, shopClaims, rsa.privateKey)],
  ['audience', issuerName, sign({ aud: 'other' })],
  ['audience', issuerName, signOnly(without('aud'))],
  ['expired', issuerName, sign({ exp: startSeconds - 6 })],
  ['not_before', issuerName, sign({ nbf: startSeconds + 6 })],
  ['lifetime', issuerName, sign({ exp: claims.iat + 24 * 3600 + 1 })],
  ['issued_in_future', issuerName, sign({ iat: startSeconds + 6 })],
  ['no_expiry', issuerName, signOnly(without('exp'))],
  ['user_claim', issuerName, sign({ sub: 'a user' })],
  ['user_claim', 'shop', forgeSecret({ alg: 'HS256' }, { ...claims, iss: 'shop' }, secret)],
  ['issuer_unknown', undefined, sign({ iss: 'https://evil.example/' })],
  ['malformed', issuerName, sign({}, { crit: [] })],
  ['malformed', issuerName, sign({ nbf: '0' })],
];

test('a refused token is logged once a minute with its trusted issuer and the reason, and no text of the token', async (t) => {
  for (const [reason, issuer, token] of refusals) {
    const { trusted, lines, warnings, clock } = await open(t, [withPublicKey, withSecret]);

    for (let count = 0; count < 3; count += 1)
      await assert.rejects(trusted.verify(token), { status: 401 }, reason);
    clock.now += 60_000;
    warnings.report();

    const line = { level: 'warn', phrase: 'JWT refused', ...(issuer && { issuer }), reason };
    assert.deepEqual(lines, [line, { ...line, repeated: 2 }]);
  }
});

test('docs/trusted-issuers.md and docs/troubleshooting.md explain each reason', () => {
  const others = ['key', 'issued_before', 'no_issued_at'];
  const reasons = [...refusals.map(([reason]) => reason), ...others];

  for (const name of ['trusted-issuers', 'troubleshooting']) {
    const page = readFileSync(new URL(`../../../docs/${name}.md`, import.meta.url), 'utf8');
    for (const reason of reasons) assert.match(page, new RegExp(`^\\|.*\`${reason}\`.*\\|`, 'm'));
  }
});

test('a token whose key is not in the JWKS is logged with the reason key', async (t) => {
  const { trusted, lines } = await openJwks(t);

  await assert.rejects(trusted.verify(await newKey.sign(claims)), isInvalid);

  const [{ reason, issuer } = {}] = lines;
  assert.deepEqual({ reason, issuer }, { reason: 'key', issuer: issuerName });
});

test('a token that is accepted and a token whose keys are unavailable are not logged as refused', async (t) => {
  const server = await JwksServer.start(t);
  await server.stop();
  const { trusted, lines } = await open(t, [withJwks(server), withSecret]);

  await trusted.verify(forgeSecret({ alg: 'HS256' }, shopClaims, secret));
  await assert.rejects(trusted.verify(await oldKey.sign(claims)), isUnavailable);

  assert.ok(lines.every(({ phrase }) => phrase !== 'JWT refused'));
});

test('an issuer is compared exactly, including a slash at its end', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);

  for (const iss of [...otherIssuers, `${withPublicKey.issuer} `, '', null, [claims.iss]]) {
    const token = sign({ iss });
    assert.equal(trusted.isForeign(token), false, String(iss));
    await assert.rejects(trusted.verify(token), isInvalid);
  }
});

test('text that is not a token is not taken for a token of a trusted issuer', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);
  const { trusted: nobody } = await open(t, []);

  for (const text of ['', '.', '..', 'a.b.c', 'x'.repeat(10_000), '\u00e9.\u00e9.\u00e9']) {
    assert.equal(trusted.isForeign(text), false);
    await assert.rejects(trusted.verify(text), isInvalid);
  }
  assert.equal(nobody.isForeign(sign()), false);
});

/** Signs a token of this length. The header is padded, too, because base64 skips every fourth length. */
function signOfLength(length: number): string {
  for (const typ of ['JWT', 'JWT-', 'JWT--']) {
    const room = Math.floor(((length - sign({ pad: '' }, { typ }).length) * 3) / 4);
    for (let extra = -2; extra <= 2; extra += 1) {
      const token = sign({ pad: 'x'.repeat(room + extra) }, { typ });
      if (token.length === length) return token;
    }
  }
  throw new Error(`no token of ${length} characters`);
}

test('a token of more than 8 KiB is refused', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);

  for (const length of [8191, 8192]) await trusted.verify(signOfLength(length));
  for (const length of [8193, 8194]) {
    const token = signOfLength(length);
    assert.equal(trusted.isForeign(token), false);
    await assert.rejects(trusted.verify(token), isInvalid);
  }
});

const acceptedUsers = [
  ...['1', 'auth0|5f7c8ec7c33c6c004bbafe82', 'ada@example.com', 'https://id.example.com/u/7?x=1#y'],
  ...['6b0f7a52-6a7b-4d0f-9d0a-6f9b3c1f2e11', `${'x'.repeat(252)}`, "~!#$%&'()+-./:;<=>?@[]^_`{|}"],
];

test('user ids of other systems are kept as they are', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);

  for (const sub of acceptedUsers) {
    const { userId } = await trusted.verify(sign({ sub }));
    assert.equal(userId, `id:${sub}`);
  }
});

const refusedUsers = [
  ...['', ' ', 'a b', 'a"', 'a,b', 'a\\b', 'a*', 'a\n', 'a\u007f', 'a\0', 'adá', 'a\ud800'],
  ...[42, true, null, ['a'], { a: 1 }, 'x'.repeat(253)],
];

test('a token whose user claim is not a user id is refused', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);

  for (const sub of refusedUsers) {
    await assert.rejects(trusted.verify(sign({ sub })), isInvalid, JSON.stringify(sub));
  }
});

test('a user claim is read only from the token itself', async (t) => {
  const { trusted } = await open(t, [{ ...withPublicKey, userClaim: 'constructor' }]);

  await assert.rejects(trusted.verify(sign()), isInvalid);
});

test('a user id has at most 255 characters with its prefix', async (t) => {
  const { trusted } = await open(t, [{ ...withPublicKey, userPrefix: '' }]);

  const { userId } = await trusted.verify(sign({ sub: 'x'.repeat(255) }));

  assert.equal(userId.length, 255);
  await assert.rejects(trusted.verify(sign({ sub: 'x'.repeat(256) })), isInvalid);
});

test('a token is valid until the clock tolerance after exp has passed', async (t) => {
  const { trusted, clock } = await open(t, [withPublicKey]);
  const token = sign();

  clock.now = start + hour + 5 * second - 1;
  await trusted.verify(token);
  clock.now += 1;
  await assert.rejects(trusted.verify(token), isExpired);
});

test('a token is valid from the clock tolerance before nbf on', async (t) => {
  const { trusted, clock } = await open(t, [withPublicKey]);
  const token = sign({ nbf: startSeconds + 60 });

  clock.now = start + 55 * second - 1;
  await assert.rejects(trusted.verify(token), isInvalid);
  clock.now += 1;
  await trusted.verify(token);
});

test('without a clock tolerance exp is exact', async (t) => {
  const { trusted, clock } = await open(t, [withPublicKey], { clockToleranceMs: 0 });

  clock.now = start + hour - 1;
  await trusted.verify(sign());
  clock.now += 1;
  await assert.rejects(trusted.verify(sign()), isExpired);
});

test('an expired token of another audience is invalid, not expired', async (t) => {
  const { trusted, clock } = await open(t, [withPublicKey]);
  clock.now = start + day;

  await assert.rejects(trusted.verify(sign({ aud: 'other' })), isInvalid);
});

test('a token is refused if the time from its iat to its exp is longer than the allowed life', async (t) => {
  const { trusted } = await open(t, [withPublicKey], { tokenLifeMaxMs: 2 * hour });
  const signForSeconds = (seconds: number) => sign({ exp: claims.iat + seconds });

  await trusted.verify(signForSeconds(7199));
  await trusted.verify(signForSeconds(7200));
  await assert.rejects(trusted.verify(signForSeconds(7201)), isInvalid);
});

test('a token without iat is refused if it expires later than the allowed life from now', async (t) => {
  const { trusted, clock } = await open(t, [withPublicKey], { tokenLifeMaxMs: hour });
  const token = signOnly(without('iat'));

  await trusted.verify(token);
  clock.now -= 1;
  await assert.rejects(trusted.verify(token), isInvalid);
});

test('a token that was issued in the future is refused, except for the clock tolerance', async (t) => {
  const { trusted } = await open(t, [withPublicKey], { tokenLifeMaxMs: hour });
  const issueAt = (iat: number) => sign({ iat, exp: iat + 60 });

  await trusted.verify(issueAt(startSeconds + 5));
  await assert.rejects(trusted.verify(issueAt(startSeconds + 6)), isInvalid);
});

test('over the limit of invalid tokens no signature is verified, and valid signatures do not count', async (t) => {
  const { trusted } = await open(t, [withPublicKey]);
  const counts = { admitted: 0, invalid: 0 };
  const admit = () => {
    if (counts.invalid >= 2) throw new Failure('too_many_requests', 'too many');
    counts.admitted += 1;
    counts.invalid += 1;
    return () => {
      counts.invalid -= 1;
    };
  };
  const valid = sign({});
  const forge = (index: number) => `${sign({ jti: `${index}` }).slice(0, -20)}${'A'.repeat(20)}`;
  const expired = sign({ iat: startSeconds - 7200, exp: startSeconds - 3600 });

  await trusted.verify(valid, { admit });
  await assert.rejects(trusted.verify(expired, { admit }), { name: 'expired_token' });
  assert.deepEqual(counts, { admitted: 2, invalid: 0 });
  for (const index of [1, 2])
    await assert.rejects(trusted.verify(forge(index), { admit }), isInvalid);
  await assert.rejects(trusted.verify(forge(3), { admit }), { name: 'too_many_requests' });

  assert.deepEqual(counts, { admitted: 4, invalid: 2 });
  await trusted.verify(valid, { admit }); // A token that was verified before needs no admission.
});

test('a key file can contain the old and the new key, and both verify', async (t) => {
  const pems = [rsa, otherRsa].map(({ publicKey }) =>
    publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  );
  const oldSecret = randomBytes(32);
  const { trusted } = await open(t, [
    { ...withPublicKey, keys: { kind: 'publicKeys', pems } },
    { ...withSecret, keys: { kind: 'secrets', secrets: [oldSecret, secret] } },
  ]);

  for (const { privateKey } of [rsa, otherRsa])
    await trusted.verify(forgePublic(header, claims, privateKey));
  for (const key of [oldSecret, secret])
    await trusted.verify(forgeSecret({ alg: 'HS256' }, shopClaims, key));
});

test('a key in a file verifies only the algorithms that fit it', async (t) => {
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const ecPem = ec.publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const { trusted } = await open(t, [
    {
      ...withPublicKey,
      algorithms: ['RS256', 'ES256'],
      keys: { kind: 'publicKeys', pems: [ecPem, publicPem] },
    },
  ]);

  await trusted.verify(sign());
  await assert.rejects(trusted.verify(sign({}, { alg: 'ES256' })), isInvalid);
});

for (const algorithm of ['HS256', 'HS384', 'HS512']) {
  test(`a secret verifies ${algorithm} if this algorithm is configured`, async (t) => {
    const longSecret = randomBytes(64);
    const hash = algorithm.replace('HS', 'sha');
    const issuer: TrustedIssuer = {
      ...{ ...withSecret, algorithms: [algorithm] },
      keys: { kind: 'secrets', secrets: [longSecret] },
    };
    const { trusted } = await open(t, [issuer]);
    const token = forgeSecret({ alg: algorithm }, shopClaims, longSecret, hash);

    const { userId } = await trusted.verify(token);

    assert.equal(userId, '42');
    const other = algorithm === 'HS256' ? 'HS512' : 'HS256';
    const unexpected = forgeSecret(
      { alg: other },
      shopClaims,
      longSecret,
      other.replace('HS', 'sha'),
    );
    await assert.rejects(trusted.verify(unexpected), isInvalid);
  });
}

// Keys from a JWKS.

const [oldKey, newKey] = await Promise.all([generateIssuerKey('old'), generateIssuerKey('new')]);

function withJwks({ url, ca }: JwksServer, changes: Partial<TrustedIssuer> = {}): TrustedIssuer {
  return { ...withPublicKey, algorithms: ['ES256'], keys: { kind: 'jwks', url, ca }, ...changes };
}

/** Starts an issuer that serves `oldKey`, and opens it as the only trusted issuer. */
async function openJwks(t: TestContext, options: Options = {}) {
  const server = await JwksServer.start(t);
  server.respondWithKeys(oldKey);
  return { server, ...(await open(t, [withJwks(server)], options)) };
}

for (const algorithm of ['RS256', 'PS384', 'ES384', 'ES512', 'EdDSA', 'Ed25519']) {
  test(`a key of a JWKS verifies ${algorithm}`, async (t) => {
    const key = await generateIssuerKey('any', algorithm);
    const server = await JwksServer.start(t);
    server.respondWithKeys(oldKey, key);
    const { trusted } = await open(t, [withJwks(server, { algorithms: [algorithm] })]);

    const { userId } = await trusted.verify(await key.sign(claims));

    assert.equal(userId, `id:${claims.sub}`);
    await assert.rejects(trusted.verify(await oldKey.sign(claims)), isInvalid);
  });
}

test('a token signed with a new key is accepted after one fetch', async (t) => {
  const { server, trusted } = await openJwks(t);
  await trusted.verify(await oldKey.sign(claims));
  server.respondWithKeys(oldKey, newKey);

  await trusted.verify(await newKey.sign(claims));

  assert.equal(server.requests, 2);
});

test('a token with an unknown kid is refused with invalid_token', async (t) => {
  const { server, trusted } = await openJwks(t);

  for (const kid of ['a', 'b', '../../etc/passwd', '']) {
    await assert.rejects(trusted.verify(await oldKey.sign(claims, { kid })), isInvalid);
  }
  assert.equal(server.requests, 2);
});

test('a token without a kid is verified with the keys of the JWKS', async (t) => {
  const { server, trusted } = await openJwks(t);
  server.respondWithKeys(newKey, oldKey);
  const stranger = await generateIssuerKey('old');

  await trusted.verify(await oldKey.sign(claims, { kid: undefined }));
  await assert.rejects(trusted.verify(await stranger.sign(claims, { kid: undefined })), isInvalid);
});

test('keys of two issuers with the same kid are not mixed up', async (t) => {
  const ours = await JwksServer.start(t);
  const theirs = await JwksServer.start(t);
  const theirKey = await generateIssuerKey('old');
  ours.respondWithKeys(oldKey);
  theirs.respondWithKeys(theirKey);
  const { trusted } = await open(t, [
    withJwks(ours),
    withJwks(theirs, { issuer: 'theirs', userPrefix: 'theirs:' }),
  ]);
  const theirClaims = { ...claims, iss: 'theirs' };

  assert.equal((await trusted.verify(await oldKey.sign(claims))).userId, `id:${claims.sub}`);
  const theirUser = await trusted.verify(await theirKey.sign(theirClaims));
  assert.equal(theirUser.userId, `theirs:${claims.sub}`);
  await assert.rejects(trusted.verify(await theirKey.sign(claims)), isInvalid);
  await assert.rejects(trusted.verify(await oldKey.sign(theirClaims)), isInvalid);
});

test('HS256 with the public key of a JWKS is refused', async (t) => {
  const { server, trusted } = await openJwks(t);
  const { x, y } = oldKey.jwk;
  const secrets = [JSON.stringify(oldKey.jwk), String(x), Buffer.from(`${x}${y}`, 'base64url')];

  for (const key of secrets) {
    const token = forgeSecret({ alg: 'HS256', kid: 'old' }, claims, Buffer.from(key));
    await assert.rejects(trusted.verify(token), isInvalid);
  }
  await trusted.verify(await oldKey.sign(claims));
  assert.equal(server.requests, 1);
});

test('a secret in a JWKS verifies nothing', async (t) => {
  const { server, trusted } = await openJwks(t);
  const k = randomBytes(32);
  const jwk = { kty: 'oct', k: k.toString('base64url'), kid: 'secret', alg: 'HS256' };
  server.respondWithText(JSON.stringify({ keys: [jwk, oldKey.jwk] }));

  await assert.rejects(
    trusted.verify(forgeSecret({ alg: 'HS256', kid: 'secret' }, claims, k)),
    isInvalid,
  );
});

const unusableJwks: readonly [string, string, (server: JwksServer) => unknown][] = [
  ['hangs', 'timeout', (server) => server.respondWith(() => {})],
  ['is huge', 'too_large', (server) => server.respondWithText(' '.repeat(1_000_000))],
  [
    'redirects',
    'status',
    (server) => server.respondWith((r) => r.writeHead(302, { location: server.url }).end()),
  ],
  ['is HTML', 'invalid', (server) => server.respondWithText('<!doctype html>')],
  ['has no key', 'invalid', (server) => server.respondWithText('{"keys":[]}')],
  ['is missing', 'status', (server) => server.respondWith((r) => r.writeHead(404).end())],
  ['is cut off', 'unreachable', (server) => server.respondWith((r) => r.socket?.destroy())],
  ['is down', 'unreachable', (server) => server.stop()],
];

/** The time limit is short only where it must pass, so that a slow machine causes no other outcome. */
const limitHanging = (outcome: string) => (outcome === 'timeout' ? { fetchTimeoutMs: 3000 } : {});

for (const [what, outcome, breakServer] of unusableJwks) {
  test(`while the JWKS ${what} at the start, a token gets 503, even a forged token`, async (t) => {
    const server = await JwksServer.start(t);
    await breakServer(server);
    const { trusted, fetches, lines } = await open(t, [withJwks(server)], limitHanging(outcome));

    for (const key of [oldKey, newKey])
      await assert.rejects(trusted.verify(await key.sign(claims)), isUnavailable);

    assert.deepEqual(fetches, [`1 ${outcome}`]);
    const [line] = lines;
    assert.equal(line?.['phrase'], 'keys of a trusted issuer cannot be fetched');
    assert.deepEqual([line['issuer'], line['outcome']], [withPublicKey.issuer, outcome]);
  });
}

for (const [what, outcome, breakServer] of unusableJwks) {
  test(`when the JWKS ${what} later, the old keys still verify, and a token with an unknown key gets 503`, async (t) => {
    const { server, trusted } = await openJwks(t, limitHanging(outcome));
    await trusted.verify(await oldKey.sign(claims));
    const stranger = await generateIssuerKey('old');
    await breakServer(server);

    await trusted.verify(await oldKey.sign(claims));
    await assert.rejects(trusted.verify(await stranger.sign(claims)), isInvalid);
    await assert.rejects(trusted.verify(await newKey.sign(claims)), isUnavailable);
  });
}

test('an unavailable JWKS is reported once a minute', async (t) => {
  const server = await JwksServer.start(t);
  await server.stop();
  const { trusted, clock, lines, fetches, warnings } = await open(t, [withJwks(server)]);
  const verify = async () => trusted.verify(await oldKey.sign(claims));

  for (let half = 0; half < 4; half += 1) {
    clock.now = start + half * 30 * second;
    await assert.rejects(verify(), isUnavailable);
    warnings.report();
  }

  assert.equal(fetches.length, 4);
  assert.deepEqual(
    lines.map(({ repeated }) => repeated),
    [undefined, 2],
  );
});

test('a token is not verified if its client no longer waits for the response', async (t) => {
  const { server, trusted } = await openJwks(t);
  const controller = new AbortController();
  const reason = new Error('client disconnected');
  server.respondWith(() => controller.abort(reason));

  await assert.rejects(
    trusted.verify(await oldKey.sign(claims), { signal: controller.signal }),
    reason,
  );
});

test('after close, a token gets 503 and causes no defect', async (t) => {
  const { trusted } = await openJwks(t);

  trusted.close();
  trusted.close();

  await assert.rejects(trusted.verify(await oldKey.sign(claims)), (cause) => {
    assert.ok(cause instanceof Failure);
    assert.equal(cause.name, 'service_unavailable');
    return true;
  });
});
