/** Bytes an HMAC key needs, by algorithm. Spec: RFC 7518 §3.2 (as long as the hash). */
const bytesMin: Readonly<Record<string, number>> = { HS256: 32, HS384: 48, HS512: 64 };

/**
 * What documentation and tutorials write where a secret should be. Nothing so short that it turns up
 * in random text: one secret in a million or fewer is refused in error.
 */
const placeholderPattern =
  /secret|password|passphrase|change.?(me|this|it)|example|sample|default|insert|replace|your[-_ ]?(own|key|jwt|token|app|private|random|super|strong|\d)|keyboard.?cat|lorem.?ipsum|qwerty|abcdefgh|12345678|01234567/i;

/**
 * How long a secret must be at least. With an algorithm that has none (RS, PS, ES) the bytes still
 * key other things, and 32 are asked for.
 */
export function secretBytesMin(algorithm: string): number {
  return bytesMin[algorithm] ?? 32;
}

/**
 * Why these bytes are no secret, to follow the name of the setting: `must have 32 bytes or more …`;
 * undefined when there is nothing to say. Never shows any of the bytes.
 */
export function findWeakness(algorithm: string, secret: Uint8Array): string | undefined {
  const least = secretBytesMin(algorithm);
  const text = Buffer.from(secret).toString('latin1');
  // A public key taken for a secret is known to everybody: the old HS/RS confusion.
  if (text.trimStart().startsWith('-----BEGIN')) return 'must be random bytes, not a PEM file';
  if (secret.length < least) return `must have ${least} bytes or more for ${algorithm}`;
  if (new Set(secret).size < 10) return 'must be random: it has fewer than 10 different bytes';
  if (placeholderPattern.test(text)) return 'must be random: it looks like a placeholder';
  return undefined;
}
