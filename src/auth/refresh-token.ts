import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  hkdfSync,
  type KeyObject,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';
import { Failure } from '../errors.js';

/** A parsed refresh token; `formatRefreshToken` returns its text. */
export interface RefreshToken {
  /** 32 hex digits. Identifies the session; does not authenticate. */
  readonly selector: string;
  /** 112 bytes, `generation 4 | random 76 | mac 32`. Authenticates the client. Only its hash is stored. */
  readonly verifier: Buffer;
}

const selectorBytes = 16;
const generationBytes = 4;
const randomPartBytes = 76;
const payloadBytes = generationBytes + randomPartBytes;
const macBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

/**
 * Mints refresh tokens and verifies their MAC.
 *
 * The text is base64 of 128 bytes, `selector 16 | generation 4 | random 76 | mac 32`, where `mac` is
 * HMAC-SHA-256 of the 96 bytes before it. The MAC is verified only when no stored hash matches, to
 * distinguish an old token (reuse: the session ends) from a forged or damaged one (nothing changes).
 * Therefore a change of secrets does not end sessions.
 *
 * Spec: RFC 9700 §4.14.2 (rotation, reuse, integrity of what a token encodes).
 */
export class RefreshTokens {
  readonly #macKeys: readonly Buffer[];

  /** The first secret is used for new tokens; all secrets verify. Throws an Error for an empty list. */
  constructor({ secrets }: { secrets: readonly (Buffer | KeyObject)[] }) {
    if (secrets.length === 0) throw new Error('Cannot make refresh tokens: no secret given');
    this.#macKeys = secrets.map((secret) =>
      Buffer.from(hkdfSync('sha256', secret, '', 'rt-mac-v1', macBytes)),
    );
  }

  /** Returns a new random token, for a new session or for a generation of the session of `selector`. */
  mint(
    selector: string = randomBytes(selectorBytes).toString('hex'),
    generation = 0,
  ): RefreshToken {
    const payload = randomBytes(payloadBytes);
    payload.writeUInt32BE(generation);
    const [key = Buffer.alloc(0)] = this.#macKeys; // Never empty: the constructor checks.
    return { selector, verifier: Buffer.concat([payload, computeMac(key, selector, payload)]) };
  }

  /** Whether the token was minted with one of the secrets. Also true for a spent token. */
  verifyMac({ selector, verifier }: RefreshToken): boolean {
    const payload = verifier.subarray(0, payloadBytes);
    const mac = verifier.subarray(payloadBytes);
    return this.#macKeys.some((key) => timingSafeEqual(computeMac(key, selector, payload), mac));
  }
}

function computeMac(key: Buffer, selector: string, payload: Buffer): Buffer {
  return createHmac('sha256', key).update(selector, 'hex').update(payload).digest();
}

/**
 * Returns how many tokens its session had before this one. Trust it only if the MAC is valid. Tokens of
 * Herald 0.1.0 have a random number here.
 */
export function readGeneration({ verifier }: RefreshToken): number {
  return verifier.readUInt32BE(0);
}

/**
 * Parses the text of a refresh token. Throws `invalid_token` for anything but 172 characters of
 * canonical base64 (RFC 4648 §4), so that a token has one spelling. Does not query the database.
 */
export function parseRefreshToken(text: unknown): RefreshToken {
  if (typeof text === 'string' && /^[A-Za-z0-9+/]{171}=$/.test(text)) {
    const bytes = Buffer.from(text, 'base64');
    // The character before `=` has two unused bits; only zeros are canonical.
    if (bytes.toString('base64') === text) {
      const verifier = bytes.subarray(selectorBytes);
      return { selector: bytes.toString('hex', 0, selectorBytes), verifier };
    }
  }
  throw new Failure('invalid_token', 'Cannot refresh: the token is invalid');
}

export function formatRefreshToken({ selector, verifier }: RefreshToken): string {
  return Buffer.concat([Buffer.from(selector, 'hex'), verifier]).toString('base64');
}

/**
 * Returns the stored hash of a verifier: SHA-256, 64 hex digits. A slow hash is not needed, because the
 * verifier has 608 random bits.
 */
export function hashVerifier(verifier: Buffer): string {
  return createHash('sha256').update(verifier).digest('hex');
}

/** Whether two hashes are equal. Compares hashes of equal length in constant time. False for null. */
export function hashesEqual(one: string, other: string | null): boolean {
  return (
    other !== null &&
    one.length === other.length &&
    timingSafeEqual(Buffer.from(one), Buffer.from(other))
  );
}

/**
 * Encrypts the successor of `parent`, so that only the holder of `parent` can read it: AES-256-GCM under
 * a key derived from `parent`. Returns base64 of `nonce 12 | ciphertext 112 | tag 16`, 188 characters.
 */
export function sealSuccessor(successor: RefreshToken, parent: RefreshToken): string {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv('aes-256-gcm', deriveSealKey(parent), nonce);
  const ciphertext = Buffer.concat([cipher.update(successor.verifier), cipher.final()]);
  return Buffer.concat([nonce, ciphertext, cipher.getAuthTag()]).toString('base64');
}

/**
 * Decrypts the result of `sealSuccessor` with the same `parent`. Throws an Error for another parent or a
 * damaged text.
 */
export function openSuccessor(sealed: string, parent: RefreshToken): RefreshToken {
  const bytes = Buffer.from(sealed, 'base64');
  const nonce = bytes.subarray(0, nonceBytes);
  const ciphertext = bytes.subarray(nonceBytes, -tagBytes);
  const decipher = createDecipheriv('aes-256-gcm', deriveSealKey(parent), nonce, {
    authTagLength: tagBytes, // Otherwise a truncated tag is accepted.
  });
  decipher.setAuthTag(bytes.subarray(-tagBytes));
  const verifier = Buffer.concat([decipher.update(ciphertext), decipher.final()]);
  return { selector: parent.selector, verifier };
}

function deriveSealKey({ selector, verifier }: RefreshToken): Buffer {
  const salt = Buffer.from(selector, 'hex');
  return Buffer.from(hkdfSync('sha256', verifier, salt, 'rt-successor-v1', 32));
}
