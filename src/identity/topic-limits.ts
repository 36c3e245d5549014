import { Failure } from '../errors.js';
import { matchesTopic } from '../events/topic.js';

/** A key, or the service that has authenticated with it, as far as it limits the topics it may name. */
export interface TopicLimitedKey {
  readonly topics: readonly string[] | undefined;
}

/**
 * Checks that a key may name these topics, or patterns of topics. Throws `topic_not_allowed` with `field` in
 * `info.field` and the refused ones in `info.topics`. A pattern is allowed if a pattern of the key matches every
 * topic that it matches.
 */
export function assertKeyAllowsTopics(
  key: TopicLimitedKey,
  topics: readonly string[],
  field: string,
): void {
  const { topics: patterns } = key;
  if (patterns === undefined) return;
  const refused = topics.filter(
    (topic) => !patterns.some((pattern) => matchesTopic(pattern, topic)),
  );
  if (refused.length === 0) return;
  const message = 'Cannot do this: the API key is limited to other topics';
  throw new Failure('topic_not_allowed', message, { info: { field, topics: refused } });
}
