import { Failure } from '../../errors.js';
import { isTopic, topicRule } from '../../events/topic.js';
import {
  isAllowed,
  noRights,
  parseTopicRights,
  type TopicRights,
} from '../../events/topic-rights.js';
import { invalidField } from '../../http/strict-fields.js';

/** Maximum number of chosen topics per stream token. */
export const chosenMax = 100;

/** Size limit of a body with 100 of the longest topics, and rights of the largest size. */
export const topicBodyBytesMax = 32 * 1024;

/**
 * Returns the topics in a field of a body, each once; none if the field is absent. Throws `invalid_request` for
 * anything but a list of at most 100 topics.
 */
export function parseTopicList(field: string, value: unknown): readonly string[] {
  if (value === undefined) return [];
  if (Array.isArray(value) && value.length <= chosenMax && value.every(isTopic))
    return [...new Set(value)];
  throw invalidField(field, `must be a list of at most ${chosenMax} topics: each ${topicRule}`);
}

/** Returns the rights in a field of a body; no rights if the field is absent. Throws `invalid_request`. */
export function parseRightsField(field: string, value: unknown): TopicRights {
  const rights = value === undefined ? noRights : parseTopicRights(value);
  if (typeof rights === 'string') throw invalidField(field, rights);
  return rights;
}

/**
 * Throws `topic_not_allowed` with the refused topics in `info.topics`, unless the rights allow to listen to all of
 * these topics.
 */
export function assertRightsAllow(
  rights: TopicRights,
  topics: readonly string[],
  field: string,
): void {
  const refused = topics.filter((topic) => !isAllowed(rights, topic, 'listen'));
  if (refused.length > 0) throw topicsNotAllowed(refused, field);
}

/** Returns the failure for topics to which the rights do not allow to listen. */
export function topicsNotAllowed(topics: readonly string[], field: string): Failure {
  const message = 'Cannot listen to topics: the rights do not allow it';
  return new Failure('topic_not_allowed', message, { info: { field, topics } });
}

/** Returns rights that also allow to listen to these topics. */
export function addListening(rights: TopicRights, topics: readonly string[]): TopicRights {
  const added = topics.filter((topic) => !isAllowed(rights, topic, 'listen'));
  if (added.length === 0) return rights;
  const merged = new Map(rights);
  for (const topic of added) merged.set(topic, [...(rights.get(topic) ?? []), 'listen']);
  return merged;
}
