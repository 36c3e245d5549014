import type { EventLog } from '../../event-log/event-log.js';
import { userIdPattern } from '../../events/audience.js';
import { isTopic, matchesTopic } from '../../events/topic.js';
import { json, type Reply } from '../../http/reply.js';
import { invalidField, parseStrictQuery } from '../../http/strict-fields.js';
import type { ServicePrincipal } from '../../identity/bearer.js';
import { assertKeyAllowsTopics } from '../../identity/topic-limits.js';
import { assertKeyAllowsUser } from '../../identity/user-prefix.js';
import type { Membership, Memberships } from '../../stream/topics/memberships.js';
import { parseLimit } from '../page-limit.js';
import { parseUser } from '../user-field.js';
import { parseTopic } from './topic-fields.js';

export interface MemberListParts {
  readonly memberships: Pick<Memberships, 'listOfTopic' | 'listOfUser'>;
  readonly eventLog: Pick<EventLog, 'format'>;
}

/** The memberships of a page, and the text that follows the last one in their order. */
interface Page {
  readonly found: readonly Membership[];
  readonly toNext: (membership: Membership) => string;
}

/**
 * Returns a page of the members of a topic, or of the memberships of a user, as far as the API key may name them.
 * Throws `invalid_request` for an invalid query, and the errors of a key that may not name the topic or the user.
 */
export async function listMembers(
  { memberships, eventLog }: MemberListParts,
  key: ServicePrincipal,
  query: URLSearchParams,
): Promise<Reply> {
  const {
    topic,
    user,
    after = '',
    limit: limitText,
  } = parseStrictQuery(query, [...(['topic', 'user', 'after', 'limit'] as const)]);
  const limit = parseLimit(limitText);
  if ((topic === undefined) === (user === undefined))
    throw invalidField('topic', 'or user must be given, but not both', 'query');
  const { found, toNext } =
    topic === undefined
      ? await findOfUser(memberships, key, parseUser(user, 'query'), after)
      : await findOfTopic(memberships, key, parseTopic(topic, 'query'), {
          after,
          limit: limit + 1,
        });
  const items = found.slice(0, limit);
  const last = items.at(-1);
  const page = {
    items: items.map(({ userId, topic: itemTopic, since, rights }) => {
      return { user: userId, topic: itemTopic, after: eventLog.format(since), rights };
    }),
    next: last && toNext(last),
    more: found.length > limit,
  };
  return json(200, page, { 'cache-control': 'no-store' });
}

async function findOfTopic(
  memberships: MemberListParts['memberships'],
  key: ServicePrincipal,
  topic: string,
  range: { readonly after: string; readonly limit: number },
): Promise<Page> {
  if (range.after !== '' && !userIdPattern.test(range.after)) throw invalidAfter();
  assertKeyAllowsTopics(key, [topic], 'topic');
  const { userPrefix = '' } = key;
  const found = await memberships.listOfTopic(topic, { userPrefix, ...range });
  return { found, toNext: ({ userId }) => userId };
}

async function findOfUser(
  memberships: MemberListParts['memberships'],
  key: ServicePrincipal,
  userId: string,
  after: string,
): Promise<Page> {
  if (after !== '' && !isTopic(after)) throw invalidAfter();
  assertKeyAllowsUser(key, userId, 'user');
  const { topics: patterns = ['*'] } = key;
  const all = await memberships.listOfUser(userId, after);
  const isAllowed = ({ topic }: Membership) =>
    patterns.some((pattern) => matchesTopic(pattern, topic));
  return { found: all.filter(isAllowed), toNext: ({ topic }) => topic };
}

function invalidAfter() {
  return invalidField('after', 'must be the next of a page', 'query');
}
