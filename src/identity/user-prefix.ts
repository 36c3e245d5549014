import { Failure } from '../errors.js';

/** Limits which users the requests with an API key may name. */
export interface UserLimit {
  /** The text that each user id must begin with. If undefined or empty, the key may name every user. */
  readonly userPrefix: string | undefined;
}

/**
 * Checks that a request with an API key may name this user. The comparison with the prefix is case-sensitive.
 *
 * Throws `user_not_allowed` if the user id does not begin with the prefix. `field` is the field of the request
 * that contains the user id; the failure has it as `info.field`.
 */
export function assertKeyAllowsUser(limit: UserLimit, userId: string, field: string): void {
  const { userPrefix = '' } = limit;
  if (userId.startsWith(userPrefix)) return;
  const message = `Cannot do this: the API key is limited to user ids that begin with ${userPrefix}`;
  throw new Failure('user_not_allowed', message, { info: { field, userPrefix } });
}
