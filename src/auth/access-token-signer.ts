import type { AccessTokens } from './access-token.js';
import type { StoredSession } from './sessions/session-table.js';

/** Makes the access token of a session. */
export type SignAccessToken = (
  session: Pick<StoredSession, 'id' | 'user' | 'tokensValidAfter'>,
) => Promise<string>;

/** As the access tokens of the house, valid although others of this second may be void. */
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
