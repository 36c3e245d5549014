import {
  type Audience,
  allAudience,
  sessionAudience,
  sessionIdPattern,
  sessionIdRule,
  topicAudience,
  userAudience,
  userIdPattern,
  userIdRule,
} from './audience.js';
import { isTopic, topicRule } from './topic.js';

/** Maximum number of users, sessions and topics of an event together. */
export const recipientsPerEventMax = 1000;
export const topicsPerEventMax = 100;

/** Why `to` of an event is invalid. */
export interface RecipientsProblem {
  /** The invalid field, such as `to.users`. */
  readonly field: string;
  /** Completes a message that begins with the field. */
  readonly reason: string;
}

/** A member of `to`. */
interface Kind {
  /** What one item of the list is. */
  readonly noun: string;
  readonly countMax: number;
  readonly isValid: (name: string) => boolean;
  readonly rule: string;
  readonly toAudience: (name: string) => Audience;
}

const kinds: Readonly<Record<string, Kind>> = {
  users: {
    noun: 'user id',
    countMax: recipientsPerEventMax,
    isValid: (id) => userIdPattern.test(id),
    rule: userIdRule,
    toAudience: userAudience,
  },
  sessions: {
    noun: 'session id',
    countMax: recipientsPerEventMax,
    isValid: (id) => sessionIdPattern.test(id),
    rule: sessionIdRule,
    toAudience: sessionAudience,
  },
  topics: {
    noun: 'topic',
    countMax: topicsPerEventMax,
    isValid: isTopic,
    rule: topicRule,
    toAudience: topicAudience,
  },
};

const kindNames = Object.keys(kinds).join(', ');

/**
 * Parses `to` of an event: `"all"`, or an object with some of `users`, `sessions` and `topics`, each a list.
 * Returns the audiences, each once: first those of users, then of sessions, then of topics.
 */
export function parseRecipients(to: unknown): readonly Audience[] | RecipientsProblem {
  if (to === 'all') return [allAudience];
  if (typeof to !== 'object' || to === null || Array.isArray(to)) {
    return { field: 'to', reason: `must be "all", or an object with some of ${kindNames}` };
  }
  const lists = to as Readonly<Record<string, unknown>>;
  const unknown = Object.keys(lists).find((name) => !Object.hasOwn(kinds, name));
  if (unknown !== undefined) {
    // Only a name that could be a mistyped field is echoed.
    return /^\w{1,32}$/.test(unknown)
      ? { field: `to.${unknown}`, reason: `is not one of the fields ${kindNames} of "to"` }
      : { field: 'to', reason: `must have no fields but ${kindNames}` };
  }
  const audiences: Audience[] = [];
  for (const [name, kind] of Object.entries(kinds)) {
    const list = lists[name];
    if (list === undefined) continue;
    const reason = findListProblem(list, kind);
    if (reason !== undefined) return { field: `to.${name}`, reason };
    for (const item of new Set(list as readonly string[])) audiences.push(kind.toAudience(item));
  }
  if (audiences.length === 0) return { field: 'to', reason: `needs some of ${kindNames}` };
  if (audiences.length > recipientsPerEventMax) {
    const reason = `must have at most ${recipientsPerEventMax} users, sessions and topics together`;
    return { field: 'to', reason };
  }
  return audiences;
}

/** Returns undefined for a list of 1 to `countMax` valid names. */
function findListProblem(
  list: unknown,
  { noun, countMax, isValid, rule }: Kind,
): string | undefined {
  if (!Array.isArray(list)) return `must be a list, with each ${noun} as a string`;
  if (list.length === 0) return `must not be empty: it names 1 to ${countMax}`;
  if (list.length > countMax) return `must name 1 to ${countMax}, not ${list.length}`;
  const index = list.findIndex((item) => !(typeof item === 'string' && isValid(item)));
  if (index === -1) return undefined;
  const item: unknown = list[index];
  if (typeof item === 'number')
    return `has a number as item ${index}: a ${noun} must be a string, such as "42"`;
  if (typeof item !== 'string') return `has item ${index} that is no string`;
  return `has an invalid ${noun} as item ${index}: a ${noun} must be ${rule}`;
}
