import { type Audience, getTopic, userAudience } from './audience.js';
import { createEventFailure } from './event-failure.js';
import { matchesTopic } from './topic.js';

/** The limits of an API key on the recipients of its events. */
export interface RecipientLimits {
  /**
   * With any text but `''`, events must be addressed to topics, or to users whose ids begin with it. A limit of
   * an API key.
   */
  readonly userPrefix?: string | undefined;
  /**
   * If set, events must be addressed only to topics, and one of these patterns must match each of them. A limit
   * of an API key.
   */
  readonly topicPatterns?: readonly string[] | undefined;
}

/** Throws `topic_not_allowed` or `user_not_allowed` for recipients that the limits of an API key exclude. */
export function assertKeyAllows(
  audiences: readonly Audience[],
  { userPrefix = '', topicPatterns }: RecipientLimits,
  index: number | undefined,
): void {
  if (topicPatterns !== undefined) {
    assertTopicsMatch(audiences, topicPatterns, index);
  } else if (userPrefix !== '' && !areUsersWithPrefix(audiences, userPrefix)) {
    const rule = `must name only topics, and users whose ids begin with ${userPrefix}, the limit of the API key`;
    throw createEventFailure('user_not_allowed', `to ${rule}`, { field: 'to', userPrefix, index });
  }
}

/** Throws `topic_not_allowed` unless all audiences are topics that a pattern matches. */
function assertTopicsMatch(
  audiences: readonly Audience[],
  patterns: readonly string[],
  index: number | undefined,
): void {
  const topics = audiences.map(getTopic).filter((topic) => topic !== undefined);
  if (topics.length < audiences.length) {
    const reason = 'to must name only topics, because the API key is limited to topics';
    throw createEventFailure('topic_not_allowed', reason, { field: 'to', topics: [], index });
  }
  const refused = topics.filter(
    (topic) => !patterns.some((pattern) => matchesTopic(pattern, topic)),
  );
  if (refused.length === 0) return;
  const reason = 'to.topics has topics outside the limit of the API key, see info.topics';
  const info = { field: 'to.topics', topics: refused, index };
  throw createEventFailure('topic_not_allowed', reason, info);
}

function areUsersWithPrefix(audiences: readonly Audience[], userPrefix: string): boolean {
  const beginning = userAudience(userPrefix);
  return audiences.every(
    (audience) => audience.startsWith(beginning) || getTopic(audience) !== undefined,
  );
}
