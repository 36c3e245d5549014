import { Failure } from '../errors.js';

/** The limit on the users that an API key, or a service that has authenticated with it, may name. */
export interface PrefixedKey {
  readonly userPrefix: string | undefined;
}

/**
 * Checks that a key may name this user. Throws `user_not_allowed` with `field` in `info.field` for a user id
 * that does not begin with the prefix of the key. Compares exactly.
 */
export function assertKeyAllowsUser(key: PrefixedKey, userId: string, field: string): void {
  const { userPrefix = '' } = key;
  if (userId.startsWith(userPrefix)) return;
  const message = `Cannot do this: the API key is limited to user ids that begin with ${userPrefix}`;
  throw new Failure('user_not_allowed', message, { info: { field, userPrefix } });
}
