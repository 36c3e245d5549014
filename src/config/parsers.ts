import { parseRate as parseRateText, type Rate } from '../util/token-bucket.js';
import type { EnvReader } from './env-reader.js';
import { findPattern } from './secret-strength.js';

// Parsers of settings that `EnvReader` has no method for.

/** Returns the minimum argon2 memory by number of passes. Spec: OWASP Password Storage Cheat Sheet. */
export function memoryKibMin(passes: number): number {
  return [47_104, 19_456, 12_288, 9216][passes - 1] ?? 7168;
}

export function parseName(reader: EnvReader, name: string, isProduction: boolean): string {
  const given = reader.optional(name);
  if (given === undefined && isProduction)
    reader.problems.push(`${name} is required in production`);
  return given ?? 'herald';
}

export function parseRate(reader: EnvReader, name: string, defaultValue: string): Rate {
  const rate = parseRateText(reader.text(name, defaultValue));
  if (rate !== undefined) return rate;
  reader.problems.push(`${name} must be <count>/<milliseconds>, such as ${defaultValue}`);
  return { count: 0, perMs: 0 };
}

/** Parses the scheme of an Authorization header. Spec: RFC 9110 §11.1 (a token). */
export function parseScheme(reader: EnvReader, name: string, defaultValue: string): string {
  const scheme = reader.text(name, defaultValue);
  if (!/^[\w!#$%&'*+.^`|~-]+$/.test(scheme))
    reader.problems.push(`${name} must be one word, such as ${defaultValue}`);
  return scheme;
}

/** Parses `<version>:<base64>`: a version from 1 to 32,767, and 16 random bytes or more. */
export function parsePepper(
  reader: EnvReader,
  name: string,
): { version: number; key: Buffer } | undefined {
  const given = reader.optional(name);
  if (given === undefined) return undefined;
  const [version = '', base64 = '', ...rest] = given.split(':');
  const { bytes: key, isValid } = decodeStrict(base64, 'base64');
  const isVersion = /^[1-9]\d{0,4}$/.test(version) && Number(version) <= 32_767;
  if (!isVersion || !isValid || key.length < 16 || rest.length > 0) {
    reader.problems.push(`${name} must be <version>:<base64 of 16 bytes or more>`);
  } else {
    const problem = findPattern(key, 16);
    if (problem !== undefined) reader.problems.push(`${name} ${problem}`);
  }
  return { version: Number(version), key };
}

export function parseFolder(path: string): string | undefined {
  return path === 'off' ? undefined : path;
}

/** Parses a secret: raw text, `base64:…` or `hex:…`. */
export function parseBytes(reader: EnvReader, name: string, given: string): Buffer {
  const [, encoding = '', text = ''] = /^(base64|hex):(.*)$/s.exec(given) ?? [];
  if (encoding !== 'base64' && encoding !== 'hex') return Buffer.from(given, 'utf8');
  const { bytes, isValid } = decodeStrict(text, encoding);
  if (!isValid) reader.problems.push(`${name} must be valid ${encoding} on one line`);
  return bytes;
}

/**
 * Decodes a text; `isValid` is false if the text has invalid characters. Node's decoder skips such characters or
 * stops at the first one, which would weaken a secret.
 */
function decodeStrict(
  text: string,
  encoding: 'base64' | 'hex',
): { bytes: Buffer; isValid: boolean } {
  const bytes = Buffer.from(text, encoding);
  const encodings = encoding === 'hex' ? [bytes.toString('hex')] : base64Encodings(bytes);
  const given = encoding === 'hex' ? text.toLowerCase() : text.replace(/=+$/, '');
  return { bytes, isValid: encodings.includes(given) };
}

function base64Encodings(bytes: Buffer): string[] {
  return [bytes.toString('base64').replace(/=+$/, ''), bytes.toString('base64url')];
}
