/**
 * Identifies recipients of an event: `all`, `u:<user id>` or `s:<session id>`. Both the event log
 * and the registry of streams are indexed by audience. An event is visible to every reader that has
 * one of its audiences.
 */
export type Audience = string;

export const allAudience: Audience = 'all';

/** Matches the session ids that an event can be addressed to. */
export const sessionIdPattern = /^[\w.:@-]{1,64}$/;

/**
 * Matches user ids: 1 to 255 printable ASCII characters without space, `"`, `,`, `\`, `*`. The `sub` of
 * OpenID Connect fits (OpenID Connect Core 1.0, section 2). User ids are compared exactly.
 */
export const userIdPattern = /^(?:(?![",\\*])[\x21-\x7e]){1,255}$/;

/** Matches prefixes of user ids, including the empty prefix. */
export const userPrefixPattern = /^(?:(?![",\\*])[\x21-\x7e]){0,255}$/;

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
