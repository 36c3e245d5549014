/**
 * Identifies recipients of an event: `all`, `u:<user id>`, `s:<session id>` or `t:<topic>`. Both the event log
 * and the registry of streams are indexed by audience. An event is visible to every reader that has one of its
 * audiences.
 */
export type Audience = string;

export const allAudience: Audience = 'all';

/** Matches the session ids that an event can be addressed to. */
export const sessionIdPattern = /^[\w.:@-]{1,64}$/;

/** States what `sessionIdPattern` matches, to complete a message such as "a session id must be". */
export const sessionIdRule = '1 to 64 of A-Z a-z 0-9 _ . : @ -';

/**
 * Matches user ids: 1 to 255 printable ASCII characters without space, `"`, `,`, `\`, `*`. The `sub` of
 * OpenID Connect fits (OpenID Connect Core 1.0, section 2). User ids are compared exactly.
 */
export const userIdPattern = /^(?:(?![",\\*])[\x21-\x7e]){1,255}$/;

/** States what `userIdPattern` matches, to complete a message such as "a user id must be". */
export const userIdRule = '1 to 255 printable ASCII characters without space, ", comma, \\ and *';

/** Matches prefixes of user ids, including the empty prefix. */
export const userPrefixPattern = /^(?:(?![",\\*])[\x21-\x7e]){0,255}$/;

export function userAudience(userId: string): Audience {
  return `u:${userId}`;
}

export function sessionAudience(sessionId: string): Audience {
  return `s:${sessionId}`;
}

export function topicAudience(topic: string): Audience {
  return `t:${topic}`;
}

/** Returns the topic of an audience; undefined if the audience is not that of a topic. */
export function getTopic(audience: Audience): string | undefined {
  return audience.startsWith('t:') ? audience.slice(2) : undefined;
}

/** Returns the topic of an event that is addressed to exactly one topic and to nothing else. */
export function getOnlyTopic(audiences: readonly Audience[]): string | undefined {
  const [audience] = audiences;
  return audience === undefined || audiences.length > 1 ? undefined : getTopic(audience);
}

/** Returns the audiences that every stream of this user and session has; topics come in addition. */
export function getAudiences(userId: string, sessionId: string): readonly Audience[] {
  return [allAudience, userAudience(userId), sessionAudience(sessionId)];
}
