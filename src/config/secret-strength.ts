/** Minimum bytes of an HMAC key, by algorithm. Spec: RFC 7518 §3.2 (as long as the hash). */
const bytesMin: Readonly<Record<string, number>> = { HS256: 32, HS384: 48, HS512: 64 };

/**
 * Placeholders that documentation and tutorials use for secrets. Each is long enough to be unlikely
 * in random text: at most one random secret in a million is rejected in error.
 */
const placeholderPattern =
  /secret|password|passphrase|change.?(me|this|it)|example|sample|default|insert|replace|your[-_ ]?(own|key|jwt|token|app|private|random|super|strong|\d)|keyboard.?cat|lorem.?ipsum|qwerty|abcdefgh|12345678|01234567/i;

/**
 * Returns the minimum length of the secret in bytes. With RS, PS and ES algorithms it is 32,
 * because the secret still keys refresh tokens.
 */
export function secretBytesMin(algorithm: string): number {
  return bytesMin[algorithm] ?? 32;
}

/**
 * Returns why these bytes are unfit as a secret, or undefined. The text follows the name of the
 * setting (`must have 32 bytes or more …`) and never discloses any of the bytes.
 */
export function findWeakness(algorithm: string, secret: Uint8Array): string | undefined {
  const minimum = secretBytesMin(algorithm);
  const text = Buffer.from(secret).toString('latin1');
  // A PEM file may be a public key, which is not secret: an attacker could sign with it (HS/RS
  // confusion).
  if (text.trimStart().startsWith('-----BEGIN')) return 'must be random bytes, not a PEM file';
  if (secret.length < minimum) return `must have ${minimum} bytes or more for ${algorithm}`;
  if (new Set(secret).size < 10) return 'must be random: it has fewer than 10 different bytes';
  if (placeholderPattern.test(text)) return 'must be random: it looks like a placeholder';
  return undefined;
}
