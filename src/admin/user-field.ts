import { userIdPattern } from '../events/audience.js';
import { invalidField } from '../http/strict-fields.js';

/** Returns a user id from the field `user` of a body. Throws `invalid_request` for any other value. */
export function parseUser(value: unknown): string {
  if (typeof value === 'string' && userIdPattern.test(value)) return value;
  const rule = 'must be 1 to 255 printable ASCII characters without space and without any of ",\\*';
  throw invalidField('user', rule);
}
