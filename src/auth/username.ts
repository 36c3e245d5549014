import { Failure } from '../errors.js';

const lengthMax = 190;

/**
 * Returns the key that all spellings of a username share: NFKC, trimmed, lower case. Returns
 * undefined for an invalid username: empty, longer than 190 UTF-16 units before or after
 * normalisation, or with control characters or a lone surrogate, which databases would change.
 */
export function toUsernameKey(username: string): string | undefined {
  if (!isPlainText(username)) return undefined;
  const key = username.normalize('NFKC').trim().toLowerCase();
  return key !== '' && isPlainText(key) ? key : undefined;
}

/** Returns the trimmed username and its key. Throws `invalid_request` for an invalid one. */
export function parseUsername(given: unknown): { username: string; key: string } {
  const key = typeof given === 'string' ? toUsernameKey(given) : undefined;
  if (typeof given !== 'string' || key === undefined) {
    const message = 'Cannot use username: must be 1 to 190 characters, without control characters';
    throw new Failure('invalid_request', message, { info: { body: ['username'] } });
  }
  return { username: given.trim(), key };
}

/** Returns a trimmed first or last name, possibly empty. Throws `invalid_request`. */
export function parsePersonalName(given: unknown, field: 'firstName' | 'lastName'): string {
  if (typeof given === 'string' && isPlainText(given)) return given.trim();
  const message = `Cannot use ${field}: must be 0 to 190 characters, without control characters`;
  throw new Failure('invalid_request', message, { info: { body: [field] } });
}

function isPlainText(text: string): boolean {
  return text.length <= lengthMax && !/[\p{Control}\p{Surrogate}]/u.test(text);
}
