import { userIdPattern } from '../events/audience.js';
import { invalidField } from '../http/strict-fields.js';

/**
 * Returns the user id in the field `user` of a body or in the query parameter `user`. Throws `invalid_request`
 * for a value that is not a user id.
 */
export function parseUser(value: unknown, source: 'body' | 'query' = 'body'): string {
  if (typeof value === 'string' && userIdPattern.test(value)) return value;
  const rule =
    'must be a text of 1 to 255 printable ASCII characters without space and without any of ",\\*';
  throw invalidField('user', rule, source);
}
