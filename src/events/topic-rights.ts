import { isTopicPattern, matchesTopic, topicPatternRule } from './topic.js';

/** What a client may do with the topics that a pattern matches. */
export const topicActions = ['listen', 'history', 'presence'] as const;

export type TopicAction = (typeof topicActions)[number];

/** By pattern (see `isTopicPattern`): what is allowed on the topics that it matches. */
export type TopicRights = ReadonlyMap<string, readonly TopicAction[]>;

export const noRights: TopicRights = new Map();

/** Maximum number of patterns per identity. */
export const patternsMax = 100;

/** Maximum size of the rights of an identity as JSON, UTF-8. */
export const rightsBytesMax = 4096;

/**
 * Parses rights, such as `{"orders:17": ["listen", "history"], "team:3:*": ["listen"]}`. Returns text that
 * completes a message such as "rights …" for a value that is not valid: more than 100 patterns, more than 4 KiB
 * as JSON, an invalid pattern, no action, an unknown or repeated action.
 */
export function parseTopicRights(value: unknown): TopicRights | string {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return 'must be an object from patterns of topics to lists of actions';
  }
  const entries = Object.entries(value);
  if (entries.length > patternsMax) return `must have at most ${patternsMax} patterns`;
  if (Buffer.byteLength(JSON.stringify(value)) > rightsBytesMax)
    return `must have at most ${rightsBytesMax} bytes as JSON`;
  for (const [pattern, actions] of entries) {
    if (!isTopicPattern(pattern)) return `has an invalid pattern: must be ${topicPatternRule}`;
    if (!areActions(actions))
      return `must give each pattern a list of ${topicActions.join(', ')}, each at most once`;
  }
  return new Map(entries as [string, readonly TopicAction[]][]);
}

/** Formats rights as JSON, to be stored. */
export function formatTopicRights(rights: TopicRights): string {
  return JSON.stringify(Object.fromEntries(rights));
}

/** Parses what `formatTopicRights` returned; null stands for no rights. */
export function parseStoredRights(text: string | null): TopicRights {
  if (text === null) return noRights;
  const rights = JSON.parse(text) as Readonly<Record<string, readonly TopicAction[]>>;
  return new Map(Object.entries(rights));
}

/** Whether the rights allow an action on a topic. */
export function isAllowed(rights: TopicRights, topic: string, action: TopicAction): boolean {
  for (const [pattern, actions] of rights)
    if (actions.includes(action) && matchesTopic(pattern, topic)) return true;
  return false;
}

/** Returns the union of rights: an action is allowed if any of them allows it. */
export function mergeRights(...all: readonly TopicRights[]): TopicRights {
  const merged = new Map<string, readonly TopicAction[]>();
  for (const rights of all) {
    for (const [pattern, actions] of rights)
      merged.set(pattern, [...new Set([...(merged.get(pattern) ?? []), ...actions])]);
  }
  return merged;
}

/** Whether a value is a list of actions, each at most once and at least one. */
export function areActions(value: unknown): value is readonly TopicAction[] {
  if (!Array.isArray(value) || value.length === 0) return false;
  const isKnown = (action: unknown) => topicActions.some((known) => known === action);
  return value.every(isKnown) && new Set(value).size === value.length;
}
