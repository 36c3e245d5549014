import { Failure } from '../errors.js';
import { userPrefixPattern } from '../events/audience.js';
import { isTopicPattern, topicPatternRule } from '../events/topic.js';
import { patternsMax, rightsBytesMax } from '../events/topic-rights.js';
import { parseRate } from '../util/token-bucket.js';
import { isScope, type KeyLimits, type Scope, scopes } from './api-key.js';

/** Limits as an operator enters them. An absent limit is not changed, or not set for a new key. */
export interface GivenLimits {
  readonly userPrefix?: string | undefined;
  /** Patterns of topics; null: no limit. */
  readonly topics?: readonly string[] | null | undefined;
  /** Epoch ms; null: the key does not expire. */
  readonly expiresAt?: number | null | undefined;
  /** `<count>/<milliseconds>`, as in the settings; null: no limit. */
  readonly rate?: string | null | undefined;
}

/** The last time that a `Date` can hold. */
const timeMax = 8.64e15;

/** Returns the name. Throws `invalid_request` unless it is 1 to 64 characters of `A-Z a-z 0-9 . _ -`. */
export function parseKeyName(name: string): string {
  if (/^[\w.-]{1,64}$/.test(name)) return name;
  throw invalid('name', 'the name must be 1 to 64 letters, digits, dots, _ or -');
}

/** Returns the scopes, each once. Throws `invalid_request` for an empty list and for an unknown scope. */
export function parseScopes(given: readonly string[]): Scope[] {
  const known = scopes.filter((scope) => given.includes(scope));
  if (known.length > 0 && given.every(isScope)) return known;
  throw invalid('scopes', `each scope must be one of ${scopes.join(', ')}`);
}

/**
 * Parses the given limits. A limit that is not given is absent from the result. Throws `invalid_request` for a
 * prefix with which no user id can begin, an invalid pattern, no or too many
 * patterns, a time that is not after `now`, and a malformed rate.
 */
export function parseLimits(given: GivenLimits, now: number): Partial<KeyLimits> {
  const { userPrefix, topics, expiresAt, rate } = given;
  return {
    ...(userPrefix === undefined ? {} : { userPrefix: parseUserPrefix(userPrefix) }),
    ...(topics === undefined ? {} : { topics: topics === null ? undefined : parseTopics(topics) }),
    ...(expiresAt === undefined ? {} : { expiresAt: parseExpiry(expiresAt, now) }),
    ...(rate === undefined ? {} : { rate: rate === null ? undefined : parseKeyRate(rate) }),
  };
}

/**
 * Throws `invalid_request` if the scopes need a user prefix and none is given. The ids of local accounts are
 * numbers, so without a prefix a ticket for user `1` of an application would receive the events of account `1`.
 */
export function assertPrefixIsSet(keyScopes: readonly Scope[], { userPrefix }: GivenLimits): void {
  if (!keyScopes.includes('tickets') || userPrefix !== undefined) return;
  const reason =
    'the scope tickets needs a user prefix, because a ticket for user 1 would otherwise receive the ' +
    "events of Herald's account 1; an empty prefix allows that";
  throw invalid('userPrefix', reason);
}

function parseUserPrefix(given: string): string {
  if (userPrefixPattern.test(given)) return given;
  const rule = '0 to 255 printable ASCII characters without space, ", comma, \\ and *';
  throw invalid('userPrefix', `the user prefix must be ${rule}`);
}

/** Returns the patterns, each once. */
function parseTopics(given: readonly string[]): readonly string[] {
  const invalidPattern = given.find((pattern) => !isTopicPattern(pattern));
  if (invalidPattern !== undefined)
    throw invalid('topics', `each topic must be ${topicPatternRule}`);
  const topics = [...new Set(given)];
  const isEmpty = topics.length === 0;
  if (!isEmpty && topics.length <= patternsMax && getBytes(topics) <= rightsBytesMax) return topics;
  const rule = `1 to ${patternsMax} topics of ${rightsBytesMax} bytes in all as JSON`;
  throw invalid('topics', `the key must be limited to ${rule}`);
}

function getBytes(topics: readonly string[]): number {
  return Buffer.byteLength(JSON.stringify(topics));
}

function parseExpiry(given: number | null, now: number): number | undefined {
  if (given === null) return undefined;
  if (Number.isSafeInteger(given) && given > now && given <= timeMax) return given;
  throw invalid('expiresAt', 'the time at which the key expires must be in the future');
}

function parseKeyRate(given: string) {
  const rate = parseRate(given);
  if (rate !== undefined) return rate;
  throw invalid('rate', 'the rate must be <count>/<milliseconds>, such as 100/1000');
}

function invalid(field: string, reason: string): Failure {
  return new Failure('invalid_request', `Cannot set up key: ${reason}`, { info: { field } });
}
