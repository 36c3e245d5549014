import type { Audience } from './audience.js';

const topicPattern = /^[\w.:@/~+=-]{1,128}$/;

/** Topics that begin with this text are reserved for Herald. */
const reservedPrefix = 'herald:';

/** States what `isTopic` accepts, to complete a message such as "topic must be". */
export const topicRule = `1 to 128 of A-Z a-z 0-9 _ . : @ / ~ + = - and must not begin with ${reservedPrefix}`;

/**
 * Whether a text names a topic: 1 to 128 of `A-Z a-z 0-9 _ . : @ / ~ + = -` that do not begin with `herald:`.
 * Topics are case-sensitive.
 */
export function isTopic(text: unknown): text is string {
  return typeof text === 'string' && topicPattern.test(text) && !text.startsWith(reservedPrefix);
}

/** A prefix of a pattern ends in one of these characters. */
const separators = [':', '/', '.'];

/**
 * Whether a text is a pattern of topics: the name of one topic, or `*` for all topics, or a prefix that ends in
 * `:`, `/` or `.` and is followed by `*`.
 */
export function isTopicPattern(text: unknown): text is string {
  if (typeof text !== 'string' || text === '*') return text === '*';
  if (!text.endsWith('*')) return isTopic(text);
  const prefix = text.slice(0, -1);
  return isTopic(prefix) && separators.includes(prefix.at(-1) ?? '');
}

/** States what `isTopicPattern` accepts, to complete a message such as "a pattern must be". */
export const topicPatternRule =
  'a topic, or *, or the beginning of a topic up to a separator (: / .) followed by *';

/** Whether a pattern matches a topic. Compares exactly. */
export function matchesTopic(pattern: string, topic: string): boolean {
  if (!pattern.endsWith('*')) return pattern === topic;
  return topic.startsWith(pattern.slice(0, -1));
}

/**
 * The audiences of a reader of the event log. Besides its fixed audiences, a reader has topics. It receives an
 * event of a topic only if the number of the event is higher than the number stored for that topic.
 */
export interface Reader {
  readonly audiences: readonly Audience[];
  /** By the audience of the topic (`topicAudience`): the number above which events are received. */
  readonly topics: ReadonlyMap<Audience, number>;
}

export const noTopics: Reader['topics'] = new Map();

/** For events that a reader receives only through topics, by number: the audiences of these topics. */
export type TopicsBySeq = ReadonlyMap<number, readonly Audience[]>;

/** Returns the audiences among these through which a reader with these topics receives the event `seq`. */
export function findTopics(
  audiences: readonly Audience[],
  topics: Reader['topics'],
  seq: number,
): readonly Audience[] {
  return audiences.filter((audience) => seq > (topics.get(audience) ?? Number.POSITIVE_INFINITY));
}
