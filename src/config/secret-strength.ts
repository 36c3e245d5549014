import { isUtf8 } from 'node:buffer';

/** Minimum bytes of an HMAC key, by algorithm. Spec: RFC 7518 §3.2 (as long as the hash). */
const bytesMin: Readonly<Record<string, number>> = { HS256: 32, HS384: 48, HS512: 64 };

/**
 * Minimum number of estimated bits per required byte. Random letters and digits have 5.9 bits each, so they pass.
 * Hexadecimal digits have 4 bits each, so neither a UUID nor 16 random bytes in hexadecimal pass as 32 bytes.
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
 * Returns the reason why these bytes are unfit as a secret; undefined if they are fit. The text follows
 * the name of the setting (`must have 32 bytes or more …`) and never discloses any of the bytes.
 */
export function findWeakness(algorithm: string, secret: Uint8Array): string | undefined {
  const minimum = secretBytesMin(algorithm);
  const text = Buffer.from(secret).toString('latin1');
  // A PEM file may be a public key. It is not secret, so an attacker could sign with it (HS/RS confusion).
  if (text.trimStart().startsWith('-----BEGIN')) return 'must be random bytes, not a PEM file';
  if (secret.length < minimum) return `must have ${minimum} bytes or more for ${algorithm}`;
  return findPattern(secret, minimum);
}

/**
 * Returns the reason why a secret does not look like `bytes` random bytes, raw or encoded as text; undefined if it
 * does. The text has the form of `findWeakness`.
 */
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
 * Estimates the bits of entropy of a secret, on the assumption that each character was drawn at random from an
 * alphabet. Overestimates text that only looks random.
 */
function estimateBits(secret: Uint8Array): number {
  if (!isUtf8(secret)) return 8 * countUnrepeated([...secret].map(String)); // Random bytes are hardly ever valid UTF-8.
  const text = Buffer.from(secret).toString('utf8');
  const parts = text.split(/[\s\-_.,:;!?'"]+/u);
  const joined = parts.join('');
  // Words drawn from a list of 2048 have about two bits per character.
  if (parts.filter(isWord).join('').length > 0.6 * joined.length)
    return 2 * countUnrepeated([...text]);
  // Hexadecimal, for example a UUID.
  if (/^([0-9a-f]*|[0-9A-F]*)$/.test(joined))
    return Math.min(4, getAlphabetBits(joined)) * countUnrepeated([...joined]);
  return getAlphabetBits(text) * countUnrepeated([...text]);
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

/**
 * Whether a part is `word`, `Word`, `WORD` or words in camel case. Few parts of random text between separators
 * are like this.
 */
function isWord(part: string): boolean {
  return /^(\p{Lo}+|\p{Lu}{2,}|\p{Lu}?\p{Ll}{2,}(\p{Lu}\p{Ll}{2,})*)$/u.test(part);
}

/** Counts elements, except those that end a repetition: a sequence of six elements that has occurred before. */
function countUnrepeated(elements: readonly string[]): number {
  const seen = new Set<string>();
  return elements.filter((_, index) => {
    if (index < 5) return true;
    const sequence = elements.slice(index - 5, index + 1).join();
    const isNew = !seen.has(sequence);
    seen.add(sequence);
    return isNew;
  }).length;
}
