import { userIdPattern } from '../../events/audience.js';
import { isTopic, topicRule } from '../../events/topic.js';
import { areActions, topicActions } from '../../events/topic-rights.js';
import { invalidField } from '../../http/strict-fields.js';
import type { NewMember } from '../../stream/topics/memberships.js';

/** Maximum number of users in one request. */
export const usersMax = 1000;

/** Fits 1000 users with the longest ids and all rights. */
export const bodyBytesMax = 512 * 1024;

/** Returns a topic from the field `topic`, or from that parameter of a query. Throws `invalid_request` otherwise. */
export function parseTopic(value: unknown, source: 'body' | 'query' = 'body'): string {
  if (isTopic(value)) return value;
  throw invalidField('topic', `must be ${topicRule}`, source);
}

/** Returns user ids from a list. Throws `invalid_request` for any other value, and for more than 1000. */
export function parseUsers(field: string, value: unknown = []): readonly string[] {
  if (Array.isArray(value) && value.length <= usersMax && value.every(isUserId)) return value;
  throw invalidField(field, `must be a list of at most ${usersMax} user ids`);
}

/** Returns new members from a list of user ids and objects with `user` and `rights`. Throws like `parseUsers`. */
export function parseNewMembers(value: unknown = []): readonly NewMember[] {
  const rule =
    `must be a list of at most ${usersMax} user ids, or {"user", "rights"} with a list of ` +
    `${topicActions.join(', ')}, each at most once`;
  if (!Array.isArray(value) || value.length > usersMax) throw invalidField('add', rule);
  return value.map((item: unknown) => {
    const member = toNewMember(item);
    if (member === undefined) throw invalidField('add', rule);
    return member;
  });
}

/** Throws `invalid_request` if these ids are none, more than 1000, or not all different. */
export function assertUsersFit(userIds: readonly string[], field: string): void {
  const isInRange = userIds.length > 0 && userIds.length <= usersMax;
  if (isInRange && new Set(userIds).size === userIds.length) return;
  throw invalidField(field, `must name 1 to ${usersMax} users in all, each once`);
}

function toNewMember(item: unknown): NewMember | undefined {
  if (isUserId(item)) return { userId: item, rights: [] };
  if (typeof item !== 'object' || item === null) return undefined;
  const { user, rights = [], ...unknownFields } = item as Readonly<Record<string, unknown>>;
  if (!isUserId(user) || Object.keys(unknownFields).length > 0) return undefined;
  if (Array.isArray(rights) && rights.length === 0) return { userId: user, rights: [] };
  return areActions(rights) ? { userId: user, rights } : undefined;
}

function isUserId(value: unknown): value is string {
  return typeof value === 'string' && userIdPattern.test(value);
}
