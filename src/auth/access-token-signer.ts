import type { AccessTokens } from './access-token.js';
import type { StoredSession } from './sessions/session-table.js';

/** Signs the access token of a session. */
export type SignAccessToken = (session: Pick<StoredSession, 'id' | 'user'>) => Promise<string>;

/** Creates a signer that uses `AccessTokens`. */
export function createSigner(accessTokens: Pick<AccessTokens, 'sign'>): SignAccessToken {
  return ({ id, user }) =>
    accessTokens.sign({
      userId: user.id,
      sessionId: id,
      firstName: user.firstName,
      lastName: user.lastName,
    });
}
