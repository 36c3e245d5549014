/**
 * Identifies recipients of an event: `all`, `u:<user id>` or `s:<session id>`. Both the event log
 * and the registry of streams are indexed by audience. An event is visible to every reader that has
 * one of its audiences.
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
