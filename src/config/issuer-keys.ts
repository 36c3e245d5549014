import { createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import type { IssuerFields } from './issuer-fields.js';
import { parseBytes } from './parsers.js';
import { canVerify, keyRequirement, splitPublicPems } from './public-keys.js';
import { findWeakness } from './secret-strength.js';

/** The source of the keys of a trusted issuer. */
export type IssuerKeys =
  | {
      readonly kind: 'jwks';
      readonly url: string;
      /** PEM certificates that are trusted instead of those of Node. */
      readonly ca: string | undefined;
    }
  | { readonly kind: 'publicKeys'; readonly pems: readonly string[] }
  | { readonly kind: 'secrets'; readonly secrets: readonly Buffer[] };

const kinds = ['jwksUrl', 'publicKeyFile', 'secretFile'];
/** Enough for a key rotation: the old key, the new key, and keys that nobody has removed. */
const keysPerFileMax = 4;

/** Reads the keys of an issuer. Reports keys that do not fit its algorithms. */
export function readIssuerKeys(fields: IssuerFields, algorithms: readonly string[]): IssuerKeys {
  const given = kinds.filter((kind) => fields.has(kind));
  if (given.length !== 1) {
    fields.addProblem('exactly one of', `${kinds.join(', ')} is required`);
  }
  if (fields.has('caFile') && !fields.has('jwksUrl')) {
    fields.addProblem('caFile', 'is only for jwksUrl');
  }
  if (fields.has('secretFile')) return readSecrets(fields, algorithms);
  if (fields.has('publicKeyFile')) return readPublicKeys(fields, algorithms);
  return fields.has('jwksUrl')
    ? { kind: 'jwks', url: readUrl(fields), ca: readCa(fields) }
    : { kind: 'secrets', secrets: [] };
}

function readUrl(fields: IssuerFields): string {
  const text = fields.text('jwksUrl');
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isValid = url?.protocol === 'https:' && url.username === '' && url.password === '';
  if (text !== '' && !isValid) {
    fields.addProblem('jwksUrl', 'must be a URL that begins with https://, without a password');
  }
  return text;
}

function readCa(fields: IssuerFields): string | undefined {
  const text = fields.has('caFile') ? fields.file('caFile') : undefined;
  if (text === undefined || hasOnlyCertificates(text)) return text;
  fields.addProblem('caFile', 'must hold certificates (PEM)');
  return undefined;
}

function hasOnlyCertificates(text: string): boolean {
  const pems = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    return pems.length > 0 && pems.every((pem) => new X509Certificate(pem));
  } catch {
    return false; // The constructor throws only for a block that is not a certificate.
  }
}

function readPublicKeys(fields: IssuerFields, algorithms: readonly string[]): IssuerKeys {
  const text = fields.file('publicKeyFile');
  const pems = (text === undefined ? [] : splitPublicPems(text)) ?? [];
  const keys = pems.map(parsePublicKey).filter((key) => key !== undefined);
  const isReadable =
    pems.length > 0 && pems.length <= keysPerFileMax && keys.length === pems.length;
  if (text !== undefined && !isReadable) {
    const blocks = `1 to ${keysPerFileMax} blocks BEGIN PUBLIC KEY (PEM)`;
    fields.addProblem('publicKeyFile', `must hold ${blocks} and nothing secret`);
  }
  if (isReadable && algorithms.length > 0) checkKeysFit(fields, keys, algorithms);
  return { kind: 'publicKeys', pems };
}

function checkKeysFit(
  fields: IssuerFields,
  keys: readonly KeyObject[],
  algorithms: readonly string[],
): void {
  for (const [index, key] of keys.entries()) {
    if (!algorithms.some((algorithm) => canVerify(algorithm, key)))
      fields.addProblem(
        'publicKeyFile',
        `has a key that fits none of algorithms: key ${index + 1}`,
      );
  }
  for (const algorithm of algorithms) {
    if (!keys.some((key) => canVerify(algorithm, key)))
      fields.addProblem('publicKeyFile', `must hold ${keyRequirement(algorithm)} for ${algorithm}`);
  }
}

function parsePublicKey(pem: string): KeyObject | undefined {
  try {
    return createPublicKey(pem);
  } catch {
    return undefined; // The function throws only for a block that is not a key.
  }
}

function readSecrets(fields: IssuerFields, algorithms: readonly string[]): IssuerKeys {
  const text = fields.file('secretFile');
  const lines = (text ?? '').split('\n').map((line) => line.trim());
  const texts = lines.filter((line) => line !== '');
  if (texts.length === 0 || texts.length > keysPerFileMax) {
    const rule = `must hold 1 to ${keysPerFileMax} secrets, one a line`;
    if (text !== undefined) fields.addProblem('secretFile', rule);
    return { kind: 'secrets', secrets: [] };
  }
  if (text?.includes('\ufffd')) fields.addProblem('secretFile', 'must be text in UTF-8, not bytes');
  const secrets = texts.map((line) => parseBytes(fields.reader, fields.nameOf('secretFile'), line));
  for (const [index, secret] of secrets.entries()) {
    const weaknesses = algorithms.map((algorithm) => findWeakness(algorithm, secret));
    const weakness = weaknesses.find((found) => found !== undefined);
    if (weakness !== undefined) fields.addProblem(`secretFile: secret ${index + 1}`, weakness);
  }
  return { kind: 'secrets', secrets };
}
