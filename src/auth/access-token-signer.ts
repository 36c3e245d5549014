import type { AccessTokens } from './access-token.js';
import type { StoredSession } from './sessions/session-table.js';

/** Signs the access token of a session. */
export type SignAccessToken = (
  session: Pick<StoredSession, 'id' | 'user' | 'tokensValidAfter'>,
) => Promise<string>;

/**
 * Signs with `AccessTokens`. The new token is issued no earlier than the user's `tokensValidAfter`,
 * so it is valid even when all tokens issued in the current second are void.
 */
export function createSigner(accessTokens: Pick<AccessTokens, 'sign'>): SignAccessToken {
  return ({ id, user, tokensValidAfter }) =>
    accessTokens.sign({
      userId: user.id,
      sessionId: id,
      firstName: user.firstName,
      lastName: user.lastName,
      notBeforeSeconds: tokensValidAfter,
    });
}
