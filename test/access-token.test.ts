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
import { withDeadline } from './support/with-deadline.js';

const hex = '00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef';
const otherHex = 'ffeeddccbbaa998877665544332211000123456789abcdef0123456789abcdef';

interface ObservedResponse {
  readonly status: number;
  readonly challenge: string;
  readonly name: unknown;
}

/** Sends `POST /stream/token` with these Authorization headers, unmodified. */
type SendHeaders = (authorizations: readonly string[]) => Promise<ObservedResponse>;

function overH1(system: System): SendHeaders {
  const { hostname: host, port } = new URL(system.url);
  return (authorizations) => {
    const response = new Promise<ObservedResponse>((resolve, reject) => {
      const pairs = authorizations.flatMap((value) => ['authorization', value]);
      const headers = ['host', host, 'content-length', '0', ...pairs]; // May contain a name twice.
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
    return withDeadline(response, 'a response over HTTP/1.1');
  };
}

function overH2(client: H2Client): SendHeaders {
  return async ([authorization]) => {
    const headers = authorization === undefined ? {} : { authorization };
    const {
      status,
      headers: responseHeaders,
      body,
    } = await client.ask('POST', '/stream/token', { headers });
    return { status, challenge: responseHeaders['www-authenticate'] ?? '', name: body['name'] };
  };
}

/** Starts a system with a fixed clock and logs ada in; returns the parts of her valid token. */
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
  test(`the server rejects forged access tokens over ${protocol} and logs no errors`, async (t) => {
    const { system, client, good, lines } = await startScenario(t);
    const send = protocol === 'h2' ? overH2(client) : overH1(system);
    const { header, claims, secret } = good;
    const signed = (changes: object) => forgeSecret(header, { ...claims, ...changes }, secret);
    const forged = [
      ...forgedTokens(good),
      ['an unknown user', signed({ sub: '999999' })],
      ['a session of another user', signed({ sub: String(system.userIds.bob) })],
      ['an unknown session', signed({ sid: '0'.repeat(32) })],
      ['no session', signed({ sid: undefined })],
    ] as const;

    for (const [what, token] of forged) {
      // Skips tokens that cannot be sent in a header. Spaces before a token are not a part of it.
      if (typeof token !== 'string' || !/^(?! )[\x20-\x7e\xe9]+$/.test(token)) continue;
      const response = await send([`Bearer ${token}`]);
      assert.deepEqual([response.status, response.name], [401, 'invalid_token'], what);
      assert.match(response.challenge, /^Bearer realm="herald", error="invalid_token"/, what);
    }
    assert.equal(lines.filter(({ level }) => level === 'error').length, 0);
    assert.equal((await send([`Bearer ${signed({})}`])).status, 200); // The unmodified parts are valid.
  });

  test(`an unusable Authorization header over ${protocol} gets 400 or 401 and the matching challenge`, async (t) => {
    const { system, client, accessToken: token, good } = await startScenario(t);
    const send = protocol === 'h2' ? overH2(client) : overH1(system);
    const { header, claims, secret } = good;
    const { iat } = claims;
    const malformed = /^, error="invalid_request"$/;
    const expired = forgeSecret(header, { ...claims, iat: iat - 3600, exp: iat - 60 }, secret);
    // [case, headers, failure name, challenge after its realm]. Spec: RFC 6750 §3.1.
    const cases = [
      ['no header', [], 'bad_credentials', /^$/],
      ['an empty header', [''], 'bad_credentials', /^$/],
      ['no scheme', [token], 'bad_credentials', /^$/],
      ['another scheme', [`Basic ${token}`], 'bad_credentials', /^$/],
      ['no token', ['Bearer'], 'invalid_request', malformed],
      ['a tab', [`Bearer\t${token}`], 'invalid_request', malformed],
      ['trailing text', [`Bearer ${token} x`], 'invalid_request', malformed],
      ['two credentials in one', [`Bearer ${token}, Bearer x`], 'invalid_request', malformed],
      ['two headers', [`Bearer ${token}`, `Bearer ${token}`], 'invalid_request', malformed],
      [
        'an expired token',
        [`Bearer ${expired}`],
        'expired_token',
        /^, error="invalid_token", .*ex/,
      ],
    ] as const;

    for (const [what, headers, name, challenge] of cases) {
      if (protocol === 'h2' && headers.length > 1) continue; // Node's client sends only one.
      const response = await send(headers);
      const status = name === 'invalid_request' ? 400 : 401;
      assert.deepEqual([response.status, response.name], [status, name], what);
      assert.ok(response.challenge.startsWith('Bearer realm="herald"'), what);
      assert.match(response.challenge.slice('Bearer realm="herald"'.length), challenge, what);
    }
    for (const scheme of ['bearer', 'Bearer  ']) {
      assert.equal((await send([`${scheme} ${token}`])).status, 200);
    }
  });
}

const keyPairs = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  PS384: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
} as const;

for (const [algorithm, makeKeys] of Object.entries(keyPairs)) {
  test(`tokens signed with ${algorithm} are accepted and verify with the published key`, async (t) => {
    const { system, client } = await startScenario(t);
    const hmacLogin = await client.login('ada');
    const env = writePrivateKey(system, algorithm, makeKeys());
    await system.restart(env);
    const newClient = await system.connect();

    const { accessToken } = await newClient.login('ada');
    const { status, body, headers } = await newClient.ask('GET', '/.well-known/jwks.json');

    assert.equal((await newClient.ask('GET', '/me', { bearer: accessToken })).status, 200);
    assert.equal(
      (await newClient.ask('GET', '/me', { bearer: hmacLogin.accessToken })).status,
      401,
    );
    assert.equal(status, 200);
    assert.equal(headers['cache-control'], 'public, max-age=300');
    const [key, ...others] = body['keys'] as [JsonWebKey];
    assert.deepEqual(others, []);
    for (const secret of ['d', 'p', 'q', 'k']) assert.equal(secret in key, false);
    const [head = '', payload = '', signature = ''] = accessToken.split('.');
    assert.equal(JSON.parse(Buffer.from(head, 'base64url').toString()).kid, key['kid']);
    const isValid = verify(
      `sha${algorithm.slice(2)}`,
      Buffer.from(`${head}.${payload}`),
      {
        key: createPublicKey({ key, format: 'jwk' }),
        dsaEncoding: 'ieee-p1363',
        padding: algorithm.startsWith('PS') ? 6 : 1, // RSA_PKCS1_PSS_PADDING, RSA_PKCS1_PADDING.
      },
      Buffer.from(signature, 'base64url'),
    );
    assert.equal(isValid, true);
  });
}

test('the JWKS endpoint returns 404 when the algorithm is symmetric', async (t) => {
  const { client } = await startScenario(t);

  assert.equal((await client.ask('GET', '/.well-known/jwks.json')).status, 404);
});

/** Returns whether the access token and the refresh token of a login are accepted. */
async function areTokensAccepted(
  system: System,
  login: Login,
): Promise<readonly [boolean, boolean]> {
  const client = await system.connect();
  const me = await client.ask('GET', '/me', { bearer: login.accessToken });
  const refreshed = await client.ask('POST', '/token', { json: { token: login.refreshToken } });
  return [me.status === 200, refreshed.status === 200];
}

// [changed setting, settings, whether earlier access and refresh tokens are accepted]
const changes = [
  ['nothing', {}, [true, true]],
  [
    'the secret and keeps the previous one',
    { ACCESS_TOKEN_SECRET: `hex:${otherHex}`, ACCESS_TOKEN_PREVIOUS_SECRETS: `hex:${hex}` },
    [true, true],
  ],
  ['the secret', { ACCESS_TOKEN_SECRET: `hex:${otherHex}` }, [false, true]],
  ['the issuer', { ACCESS_TOKEN_ISSUER: 'herald2' }, [false, true]],
  ['the audience', { ACCESS_TOKEN_AUDIENCE: 'herald2' }, [false, true]],
] as const;

for (const [what, env, accepted] of changes) {
  test(`a restart that changes ${what} ${accepted[0] ? 'keeps' : 'voids'} access tokens and keeps refresh tokens`, async (t) => {
    const { system, client } = await startScenario(t);
    const login = await client.login('ada');

    await system.restart({ ACCESS_TOKEN_SECRET: `hex:${hex}`, ...env });

    assert.deepEqual(await areTokensAccepted(system, login), accepted);
  });
}

test('a stream token stays valid when the access token secret changes', async (t) => {
  const { system, client } = await startScenario(t);
  const path = await client.streamPath('ada');
  await (await client.openStream(path)).opening();

  const [, [, env]] = changes; // Another secret; the previous one stays valid.
  await system.restart(env);

  const stream = await (await system.connect()).openStream(path);
  assert.equal((await stream.opening()).resumed, true);
});

function writePrivateKey(
  system: System,
  algorithm: string,
  { privateKey }: ReturnType<(typeof keyPairs)['ES256']>,
): Record<string, string> {
  const file = join(system.folder, 'token.key');
  writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem' }));
  return { ACCESS_TOKEN_ALGORITHM: algorithm, ACCESS_TOKEN_PRIVATE_KEY_FILE: file };
}
