import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, type KeyObject, sign as signBytes } from 'node:crypto';

/** The parts of a valid token; `secret` is the server's HS256 key. */
export interface GoodToken {
  readonly secret: Uint8Array;
  readonly header: { readonly alg: string; readonly typ: string; readonly kid: string };
  readonly claims: {
    readonly sid: string;
    readonly sub: string;
    readonly iat: number;
    readonly exp: number;
    readonly aud: string;
    readonly iss: string;
  };
}

/** A token that must be rejected; it is not always a string. */
export type ForgedToken = readonly [fault: string, token: unknown];

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const rsaPublicPem = rsa.publicKey.export({ type: 'spki', format: 'pem' }).toString();
const foreignSecret = Buffer.alloc(64, 'the key of another server');

const encode = (part: unknown) =>
  Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url');

/** Builds a token signed by HMAC. A head or payload given as a string is used unchanged: it need not be JSON. */
export function forgeSecret(
  head: unknown,
  payload: unknown,
  key: Uint8Array,
  hash = 'sha256',
): string {
  const signed = `${encode(head)}.${encode(payload)}`;
  return `${signed}.${createHmac(hash, key).update(signed).digest('base64url')}`;
}

/** Builds a token with an RS256 signature, whatever its head says. */
export function forgePublic(head: unknown, payload: unknown, key: KeyObject): string {
  const signed = `${encode(head)}.${encode(payload)}`;
  return `${signed}.${signBytes('sha256', Buffer.from(signed), key).toString('base64url')}`;
}

/** Returns invalid tokens that attackers are known to send to a server with an HS256 key. */
export function forgedTokens(good: GoodToken): readonly ForgedToken[] {
  return [
    ...malformedTokens(good),
    ...malformedHeaders(good),
    ...wrongKeys(good),
    ...malformedClaims(good),
  ];
}

const without = (claims: object, name: string) =>
  Object.fromEntries(Object.entries(claims).filter(([key]) => key !== name));

/** Changes unused bits of the last character, so that the segment still decodes to the same bytes. */
function reencodeSignature(segment = ''): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const last = alphabet.indexOf(segment.at(-1) ?? '');
  const other = segment.slice(0, -1) + alphabet[last + 1];
  assert.deepEqual(Buffer.from(other, 'base64url'), Buffer.from(segment, 'base64url'));
  return other;
}

function malformedTokens({ secret, header, claims }: GoodToken): ForgedToken[] {
  const token = forgeSecret(header, claims, secret);
  const [head, payload, signature] = token.split('.');
  return [
    ['no characters', ''],
    ['the value undefined', undefined],
    ['dots only', '..'],
    ['two segments', `${head}.${payload}`],
    ['four segments', `${token}.${signature}`],
    ['a line break at the end', `${token}\n`],
    ['a space in front', ` ${token}`],
    ['a non-ASCII character', `${head}.${payload}.\u00e9`],
    ['padding', `${token}=`],
    ['base64 instead of base64url', `${head}.${payload}.++//`],
    [
      'another encoding of the same signature',
      `${head}.${payload}.${reencodeSignature(signature)}`,
    ],
    [
      'the payload of another token',
      `${head}.${encode({ ...claims, sub: `${claims.sub}1` })}.${signature}`,
    ],
    ['more than 8 KiB', forgeSecret(header, { ...claims, firstName: 'x'.repeat(8192) }, secret)],
  ];
}

function malformedHeaders({ secret, header, claims }: GoodToken): ForgedToken[] {
  const forge = (head: unknown, hash?: string) => forgeSecret(head, claims, secret, hash);
  const unsigned = (alg: unknown) => `${encode({ ...header, alg })}.${encode(claims)}.`;
  const algs = ['none', 'None', 'NONE', 'nOnE', '', ['HS256'], null, 0, true];
  const kids = [
    ...['unknown', '', '../../../../dev/null', "x' union select 'key", 'a\0b', '__proto__'],
    ...[null, 7, {}, [header.kid]],
  ];
  return [
    ...algs.flatMap((alg): ForgedToken[] => [
      [`alg ${JSON.stringify(alg)}`, forge({ ...header, alg })],
      [`alg ${JSON.stringify(alg)} without a signature`, unsigned(alg)],
    ]),
    ['an empty signature', unsigned('HS256')],
    ['no alg', forge({ typ: 'JWT', kid: header.kid })],
    ['another hash size', forge({ ...header, alg: 'HS512' }, 'sha512')],
    ['alg in lower case', forge({ ...header, alg: 'hs256' })],
    ['a header that is a list', forge([])],
    ['a header that is null', forge('null')],
    ['a header that is a number', forge('7')],
    ['a header that is not JSON', forge('{')],
    ['a header with space in it', forge(`{ "alg":"HS256","kid":"${header.kid}"}`)],
    ['alg twice', forge(`{"alg":"none","alg":"HS256","kid":"${header.kid}"}`)],
    ['kid twice', forge(`{"alg":"HS256","kid":"other","kid":"${header.kid}"}`)],
    ['crit', forge({ ...header, crit: ['exp'] })],
    ['crit that is null', forge({ ...header, crit: null })],
    ['another typ', forge({ ...header, typ: 'at+jwt' })],
    ['typ null', forge({ ...header, typ: null })],
    ...kids.map((kid): ForgedToken => [`kid ${JSON.stringify(kid)}`, forge({ ...header, kid })]),
  ];
}

function wrongKeys({ header, claims }: GoodToken): ForgedToken[] {
  const jwk = rsa.publicKey.export({ format: 'jwk' });
  const withKeyUrl = { ...header, jku: 'https://evil.example/keys' };
  return [
    ['no key at all', forgeSecret(header, claims, Buffer.alloc(0))],
    ['another key', forgeSecret(header, claims, foreignSecret)],
    ['the id of the key as the key', forgeSecret(header, claims, Buffer.from(header.kid))],
    ['a public key as the secret', forgeSecret(header, claims, Buffer.from(rsaPublicPem))],
    ['an RS256 signature', forgePublic({ ...header, alg: 'RS256' }, claims, rsa.privateKey)],
    [
      'a key embedded in the token',
      forgePublic({ ...header, alg: 'RS256', jwk }, claims, rsa.privateKey),
    ],
    ['a URL to fetch the key from', forgeSecret(withKeyUrl, claims, foreignSecret)],
  ];
}

function malformedClaims({ secret, header, claims }: GoodToken): ForgedToken[] {
  const forge = (payload: unknown) => forgeSecret(header, payload, secret);
  const each = (name: string, values: readonly unknown[]) =>
    values.map((value): ForgedToken => {
      return [`${name} ${JSON.stringify(value)}`, forge({ ...claims, [name]: value })];
    });
  const { aud, iss, iat, exp, sid, sub } = claims;
  const ids = ['a\0b', 'x'.repeat(65), null];
  const prefixes = (text: string) => ['', text.slice(0, -1), `${text}2`, text.toUpperCase()];
  return [
    ['a payload that is not JSON', forge('{"sub":')],
    ['a payload that is a string', forge('"text"')],
    ['a payload that is a list', forge([claims])],
    ['a payload that is null', forge('null')],
    ['a payload that is a number', forge('7')],
    ['an empty payload', forge({})],
    ...Object.keys({ exp, iat, sub, aud, iss }).map((name): ForgedToken => {
      return [`no ${name}`, forge(without(claims, name))];
    }),
    ...each('exp', [String(exp), null, 1e308, exp + 0.5, true, [exp]]),
    ['an infinite exp', forge(JSON.stringify(claims).replace(/"exp":\d+/, '"exp":1e999'))],
    ['a lifetime longer than allowed', forge({ ...claims, exp: exp + 6 })],
    ['a lifetime of zero', forge({ ...claims, iat: exp })],
    ...each('iat', [String(iat), null, -1, 0.5]),
    ['nbf 6 s ahead', forge({ ...claims, nbf: iat + 6 })],
    ['nbf that is a string', forge({ ...claims, nbf: '0' })],
    ...each('aud', [...prefixes(aud), null, [aud], ['x', aud], { 0: aud }]),
    ...each('iss', [...prefixes(iss), null, [iss]]),
    ...each('sub', [...ids, '', Number(sub), true, [sub], { id: sub }, '4 2', "42' or 1=1"]),
    ...each('sid', [...ids, '', 7, [sid]]),
  ];
}
