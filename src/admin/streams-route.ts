import type { Exchange } from '../http/exchange.js';
import { json } from '../http/reply.js';
import { type Route, serverRoute } from '../http/router.js';
import { invalidField, parseStrictQuery } from '../http/strict-fields.js';
import { assertKeyAllowsUser } from '../identity/user-prefix.js';
import type { ListOpenStreams, OpenStreamQuery } from '../stream/open-streams/open-stream.js';
import { parseLimit } from './page-limit.js';
import { parseUser } from './user-field.js';

export interface StreamsRouteParts {
  readonly listOpenStreams: ListOpenStreams;
  /**
   * Authenticates an API key with the scope `streams` and returns its user prefix. Throws failures with
   * status 401 or 403.
   */
  readonly authenticate: (
    exchange: Exchange,
  ) => Promise<{ readonly userPrefix: string | undefined }>;
}

/**
 * Creates the route `GET /v1/streams`, which lists the open streams of every process in the order of their ids.
 * A client that reads all pages gets each stream that stays open meanwhile exactly once. A key with a user
 * prefix gets only the streams of users with that prefix.
 */
export function streamsRoute({ listOpenStreams, authenticate }: StreamsRouteParts): Route {
  return serverRoute('GET', '/v1/streams', async (exchange) => {
    const { userPrefix = '' } = await authenticate(exchange);
    const { limit, ...query } = parseQuery(exchange.query);
    if (query.user !== undefined) assertKeyAllowsUser({ userPrefix }, query.user, 'user');
    const found = await listOpenStreams({ ...query, userPrefix, limit: limit + 1 });
    const items = found.slice(0, limit);
    const page = { items, next: items.at(-1)?.id, more: found.length > limit };
    return json(200, page, { 'cache-control': 'no-store' });
  });
}

function parseQuery(query: URLSearchParams): Omit<OpenStreamQuery, 'userPrefix'> {
  const { user, after = '', limit } = parseStrictQuery(query, ['user', 'after', 'limit']);
  if (after !== '' && !/^[0-9a-f]{32}$/.test(after))
    throw invalidField('after', 'must be the next of a page, 32 hex digits', 'query');
  return {
    user: user === undefined ? undefined : parseUser(user, 'query'),
    ...{ after, limit: parseLimit(limit) },
  };
}
