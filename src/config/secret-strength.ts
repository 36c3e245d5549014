import { isUtf8 } from 'node:buffer';

/** Minimum bytes of an HMAC key, by algorithm. Spec: RFC 7518 §3.2 (as long as the hash). */
const bytesMin: Readonly<Record<string, number>> = { HS256: 32, HS384: 48, HS512: 64 };

/**
 * Minimum of the estimated bits, per required byte. Random letters and digits have 5.9. Hexadecimal digits have 4, so
 * that neither a UUID nor 16 random bytes in hexadecimal count as 32 random bytes.
 */
const bitsPerByteMin = 5;

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
  return findPattern(secret, minimum);
}

/** Returns, like `findWeakness`, why these bytes do not look like `bytes` random bytes, raw or as text. */
export function findPattern(secret: Uint8Array, bytes: number): string | undefined {
  if (new Set(secret).size < 10) return 'must be random: it has fewer than 10 different bytes';
  if (placeholderPattern.test(Buffer.from(secret).toString('latin1')))
    return 'must be random: it looks like a placeholder';
  const [bits, bitsMin] = [Math.floor(estimateBits(secret)), bitsPerByteMin * bytes];
  if (bits >= bitsMin) return undefined;
  const basis = 'estimated from its length, kinds of characters, words and repetitions';
  return `must be random: it has about ${bits} bits (${basis}), and ${bitsMin} are required; openssl rand -base64 ${bytes} prints a better one`;
}

/**
 * Estimates the bits of entropy of a secret as if each character was drawn from an alphabet. Text that is not random but
 * looks random is overestimated.
 */
function estimateBits(secret: Uint8Array): number {
  if (!isUtf8(secret)) return 8 * countNew([...secret].map(String)); // Random bytes are hardly ever UTF-8.
  const text = Buffer.from(secret).toString('utf8');
  const parts = text.split(/[\s\-_.,:;!?'"]+/u);
  const joined = parts.join('');
  // Two bits per character is what words drawn from a list of 2048 have.
  if (parts.filter(isWord).join('').length > 0.6 * joined.length) return 2 * countNew([...text]);
  // Hexadecimal, for example a UUID.
  if (/^([0-9a-f]*|[0-9A-F]*)$/.test(joined))
    return Math.min(4, getAlphabetBits(joined)) * countNew([...joined]);
  return getAlphabetBits(text) * countNew([...text]);
}

function getAlphabetBits(text: string): number {
  const alphabets: readonly (readonly [RegExp, number])[] = [
    [/\p{Ll}/u, 26],
    [/\p{Lu}/u, 26],
    [/\p{N}/u, 10],
    [/[^\p{Ll}\p{Lu}\p{N}]/u, 32],
  ];
  const sizes = alphabets.map(([kind, size]) => (kind.test(text) ? size : 0));
  return Math.log2(sizes.reduce((sum, size) => sum + size, 0));
}

/** Whether this is `word`, `Word`, `WORD` or words in camel case. Between separators, random text has few such parts. */
function isWord(part: string): boolean {
  return /^(\p{Lo}+|\p{Lu}{2,}|\p{Lu}?\p{Ll}{2,}(\p{Lu}\p{Ll}{2,})*)$/u.test(part);
}

/** Returns the number of elements that are not the end of a sequence of six which occurred before. */
function countNew(elements: readonly string[]): number {
  const seen = new Set<string>();
  return elements.filter((_, index) => {
    if (index < 5) return true;
    const sequence = elements.slice(index - 5, index + 1).join();
    const isNew = !seen.has(sequence);
    seen.add(sequence);
    return isNew;
  }).length;
}
