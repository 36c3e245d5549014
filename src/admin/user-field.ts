import { userIdPattern } from '../events/audience.js';
import { invalidField } from '../http/strict-fields.js';

/**
 * Returns a user id from the field `user` of a body, or from that parameter of a query. Throws `invalid_request`
 * for any other value.
 */
export function parseUser(value: unknown, source: 'body' | 'query' = 'body'): string {
  if (typeof value === 'string' && userIdPattern.test(value)) return value;
  const rule = 'must be 1 to 255 printable ASCII characters without space and without any of ",\\*';
  throw invalidField('user', rule, source);
}
