/**
 * Who an event is for, as one word: `all`, `u:<user id>` or `s:<session id>`. The same words index
 * the log and the registry: an event goes to every reader that shares a word with it.
 */
export type Audience = string;

export const allAudience: Audience = 'all';

/** User ids and session ids as they may be addressed. */
export const recipientPattern = /^[\w.:@-]{1,64}$/;

export function userAudience(userId: string): Audience {
  return `u:${userId}`;
}

export function sessionAudience(sessionId: string): Audience {
  return `s:${sessionId}`;
}

/** Every word a reader listens to. */
export function getAudiences(userId: string, sessionId: string): readonly Audience[] {
  return [allAudience, userAudience(userId), sessionAudience(sessionId)];
}
