/**
 * Identifies recipients of an event: `all`, `u:<user id>` or `s:<session id>`. Audiences index both
 * the event log and the registry: an event is visible to every reader with one of its audiences.
 */
export type Audience = string;

export const allAudience: Audience = 'all';

/** Matches the user ids and session ids that an event can be addressed to. */
export const recipientPattern = /^[\w.:@-]{1,64}$/;

export function userAudience(userId: string): Audience {
  return `u:${userId}`;
}

export function sessionAudience(sessionId: string): Audience {
  return `s:${sessionId}`;
}

/** Returns every audience of a reader with this user and session. */
export function getAudiences(userId: string, sessionId: string): readonly Audience[] {
  return [allAudience, userAudience(userId), sessionAudience(sessionId)];
}
