import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, type JsonWebKey, verify } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { forgedTokens, forgeSecret, type GoodToken } from './support/clients/forged-tokens.js';
import type { H2Client, Login } from './support/clients/h2-client.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { ca } from './support/servers/certificate.js';
import { type System, startSystem } from './support/servers/system.js';

const hex = '00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef';
const otherHex = 'ffeeddccbbaa998877665544332211000123456789abcdef0123456789abcdef';

interface ObservedResponse {
  readonly status: number;
  readonly challenge: string;
  readonly name: unknown;
}

/** `POST /stream/token` with these Authorization headers, as they are. */
type SendHeaders = (authorizations: readonly string[]) => Promise<ObservedResponse>;

function overH1(system: System): SendHeaders {
  const { hostname: host, port } = new URL(system.url);
  return (authorizations) =>
    new Promise((resolve, reject) => {
      const head = authorizations.flatMap((value) => ['authorization', value]);
      const headers = ['host', host, 'content-length', '0', ...head]; // May have a name twice.
      const options = { host, port, ca, method: 'POST', path: '/stream/token', headers };
      request({ ...options, agent: false }, async (answer) => {
        const chunks: Buffer[] = await answer.toArray();
        const challenge = answer.headers['www-authenticate'] ?? '';
        const { name } = JSON.parse(Buffer.concat(chunks).toString());
        resolve({ status: answer.statusCode ?? 0, challenge, name });
      })
        .on('error', reject)
        .end();
    });
}

function overH2(client: H2Client): SendHeaders {
  return async ([authorization]) => {
    const headers = authorization === undefined ? {} : { authorization };
    const { status, headers: given, body } = await client.ask('POST', '/stream/token', { headers });
    return { status, challenge: given['www-authenticate'] ?? '', name: body['name'] };
  };
}

/** A system whose clock stands still, a login, and what a good token of it is made of. */
async function startScenario(t: TestContext) {
  const now = Date.now();
  const lines: Record<string, unknown>[] = [];
  const system = await startSystem(t, {
    env: { ACCESS_TOKEN_SECRET: `hex:${hex}`, AUTH_WORKERS: '1' },
    wallClock: () => now,
    log: collectingLog(lines),
  });
  const client = await system.connect();
  const { accessToken } = await client.login('ada');
  const [header, claims] = accessToken
    .split('.', 2)
    .map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()));
  const good: GoodToken = { secret: Buffer.from(hex, 'hex'), header, claims };
  return { system, client, accessToken, good, lines };
}

for (const protocol of ['h2', 'http/1.1'] as const) {
  test(`no forged token passes over ${protocol}, and none is an error of ours`, async (t) => {
    const { system, client, good, lines } = await startScenario(t);
    const show = protocol === 'h2' ? overH2(client) : overH1(system);
    const { header, claims, secret } = good;
    const signed = (changes: object) => forgeSecret(header, { ...claims, ...changes }, secret);
    const forged = [
      ...forgedTokens(good),
      ['a user there is not', signed({ sub: '999999' })],
      ['the session of another', signed({ sub: String(system.userIds.bob) })],
      ['a session there is not', signed({ sid: '0'.repeat(32) })],
      ['no session', signed({ sid: undefined })],
    ] as const;

    for (const [what, token] of forged) {
      // Others cannot be sent in a header.
      if (typeof token !== 'string' || !/^[\x20-\x7e\xe9]+$/.test(token)) continue;
      const seen = await show([`Bearer ${token}`]);
      // A space makes it no header of ours, see below.
      const name = token.startsWith(' ') ? 'bad_credentials' : 'invalid_token';
      assert.deepEqual([seen.status, seen.name], [401, name], what);
      const error = token.startsWith(' ') ? 'invalid_request' : 'invalid_token';
      assert.match(seen.challenge, new RegExp(`^Bearer realm="herald", error="${error}"`), what);
    }
    assert.equal(lines.filter(({ level }) => level === 'error').length, 0);
    assert.equal((await show([`Bearer ${signed({})}`])).status, 200); // So the parts were good.
  });

  test(`an odd Authorization header is refused with its challenge over ${protocol}`, async (t) => {
    const { system, client, accessToken: token, good } = await startScenario(t);
    const show = protocol === 'h2' ? overH2(client) : overH1(system);
    const { header, claims, secret } = good;
    const { iat } = claims;
    const expired = forgeSecret(header, { ...claims, iat: iat - 3600, exp: iat - 60 }, secret);
    // [what, headers, status, name, the challenge after its realm]
    const odd = [
      ['none', [], 'bad_credentials', /^$/],
      ['an empty one', [''], 'bad_credentials', /^$/],
      ['no scheme', [token], 'bad_credentials', /^, error="invalid_request"$/],
      ['another scheme', [`Basic ${token}`], 'bad_credentials', /^, error="invalid_request"$/],
      ['two spaces', [`Bearer  ${token}`], 'bad_credentials', /^, error="invalid_request"$/],
      ['a tab', [`Bearer\t${token}`], 'bad_credentials', /^, error="invalid_request"$/],
      ['more after it', [`Bearer ${token} x`], 'bad_credentials', /^, error="invalid_request"$/],
      ['two in one', [`Bearer ${token}, Bearer x`], 'bad_credentials', /invalid_request/],
      ['two', [`Bearer ${token}`, `Bearer ${token}`], 'bad_credentials', /invalid_request/],
      [
        'an expired token',
        [`Bearer ${expired}`],
        'expired_token',
        /^, error="invalid_token", .*ex/,
      ],
    ] as const;

    for (const [what, headers, name, challenge] of odd) {
      if (protocol === 'h2' && headers.length > 1) continue; // Node's client sends one.
      const seen = await show(headers);
      assert.deepEqual([seen.status, seen.name], [401, name], what);
      assert.ok(seen.challenge.startsWith('Bearer realm="herald"'), what);
      assert.match(seen.challenge.slice('Bearer realm="herald"'.length), challenge, what);
    }
    assert.equal((await show([`bearer ${token}`])).status, 200);
  });
}

const keyPairs = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  PS384: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
} as const;

for (const [algorithm, makeKeys] of Object.entries(keyPairs)) {
  test(`tokens signed with ${algorithm} are good here, and elsewhere with the public key`, async (t) => {
    const { system, client } = await startScenario(t);
    const before = await client.login('ada');
    const env = keyFilesIn(system, algorithm, makeKeys());
    await system.restart(env);
    const next = await system.connect();

    const { accessToken } = await next.login('ada');
    const { status, body, headers } = await next.ask('GET', '/.well-known/jwks.json');

    assert.equal((await next.ask('GET', '/me', { bearer: accessToken })).status, 200);
    assert.equal((await next.ask('GET', '/me', { bearer: before.accessToken })).status, 401);
    assert.equal(status, 200);
    assert.equal(headers['cache-control'], 'public, max-age=300');
    const [key, ...others] = body['keys'] as [JsonWebKey];
    assert.deepEqual(others, []);
    for (const secret of ['d', 'p', 'q', 'k']) assert.equal(secret in key, false);
    const [head = '', payload = '', signature = ''] = accessToken.split('.');
    assert.equal(JSON.parse(Buffer.from(head, 'base64url').toString()).kid, key['kid']);
    const isGood = verify(
      `sha${algorithm.slice(2)}`,
      Buffer.from(`${head}.${payload}`),
      {
        key: createPublicKey({ key, format: 'jwk' }),
        dsaEncoding: 'ieee-p1363',
        padding: algorithm.startsWith('PS') ? 6 : 1, // As in node:crypto's constants.
      },
      Buffer.from(signature, 'base64url'),
    );
    assert.equal(isGood, true);
  });
}

test('where keys are secret, no keys are shown', async (t) => {
  const { client } = await startScenario(t);

  assert.equal((await client.ask('GET', '/.well-known/jwks.json')).status, 404);
});

/** Whether an access token of before and a refresh token of before are still good. */
async function getAccepted(system: System, login: Login): Promise<readonly [boolean, boolean]> {
  const client = await system.connect();
  const me = await client.ask('GET', '/me', { bearer: login.accessToken });
  const refreshed = await client.ask('POST', '/token', { json: { token: login.refreshToken } });
  return [me.status === 200, refreshed.status === 200];
}

// [what is changed, the settings, whether access and refresh tokens of before are good]
const changes = [
  ['nothing', {}, [true, true]],
  [
    'the secret, with the old one listed',
    { ACCESS_TOKEN_SECRET: `hex:${otherHex}`, ACCESS_TOKEN_PREVIOUS_SECRETS: `hex:${hex}` },
    [true, true],
  ],
  ['the secret alone', { ACCESS_TOKEN_SECRET: `hex:${otherHex}` }, [false, true]],
  ['the issuer', { ACCESS_TOKEN_ISSUER: 'herald2' }, [false, true]],
  ['the audience', { ACCESS_TOKEN_AUDIENCE: 'herald2' }, [false, true]],
] as const;

for (const [what, env, kept] of changes) {
  test(`after a restart that changes ${what}, tokens of before are good or not`, async (t) => {
    const { system, client } = await startScenario(t);
    const login = await client.login('ada');

    await system.restart({ ACCESS_TOKEN_SECRET: `hex:${hex}`, ...env });

    assert.deepEqual(await getAccepted(system, login), kept);
  });
}

test('after a change of secret a stream goes on with the token it has', async (t) => {
  const { system, client } = await startScenario(t);
  const path = await client.streamPath('ada');
  await (await client.openStream(path)).opening();

  const [, [, env]] = changes;
  await system.restart(env);

  const stream = await (await system.connect()).openStream(path);
  assert.equal((await stream.opening()).resumed, true);
});

function keyFilesIn(
  system: System,
  algorithm: string,
  { privateKey }: ReturnType<(typeof keyPairs)['ES256']>,
): Record<string, string> {
  const file = join(system.folder, 'token.key');
  writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem' }));
  return { ACCESS_TOKEN_ALGORITHM: algorithm, ACCESS_TOKEN_PRIVATE_KEY_FILE: file };
}
