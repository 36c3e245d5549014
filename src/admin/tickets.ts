import type { Exchange } from '../http/exchange.js';
import { type Route, serverRoute } from '../http/router.js';
import {
  invalidField,
  missingFields,
  parseStrictBody,
  refuseQuery,
} from '../http/strict-fields.js';
import type { ServicePrincipal } from '../identity/bearer.js';
import { getForeignSessionId } from '../identity/foreign-session.js';
import { assertKeyAllowsTopics } from '../identity/topic-limits.js';
import { assertKeyAllowsUser } from '../identity/user-prefix.js';
import { type MintingParts, mintToken } from '../stream/minting.js';
import {
  addListening,
  parseRightsField,
  parseTopicList,
  topicBodyBytesMax,
} from '../stream/topics/topic-list.js';
import { parseUser } from './user-field.js';

export interface TicketRouteParts extends MintingParts {
  /** Authenticates an API key with the scope `tickets`. Throws failures with status 401 or 403. */
  readonly authenticate: (exchange: Exchange) => Promise<ServicePrincipal>;
  readonly wallClock: () => number;
}

const minuteMs = 60_000;
const dayMs = 86_400_000;
const endsInMs = { min: minuteMs, max: 30 * dayMs, default: dayMs / 2 };
const labelLengthMax = 255;

/**
 * Creates the route `POST /v1/tickets`, by which a backend gets a stream token for one of its own users. The
 * user needs no account. The reply is the same as that of `POST /stream/token`. The stream ends after `endsIn`
 * milliseconds, unless the token is extended. It receives the events of `topics` from the beginning of the token,
 * and `rights` say which topics its client may choose later, besides `topics`. Tickets with the same user and the
 * same `session` belong to one session, whose id is derived by `getForeignSessionId`.
 */
export function ticketsRoute({ authenticate, wallClock, ...parts }: TicketRouteParts): Route {
  return serverRoute('POST', '/v1/tickets', async (exchange) => {
    const key = await authenticate(exchange);
    refuseQuery(exchange.query);
    const body = parseStrictBody(await exchange.body({ bytesMax: topicBodyBytesMax }), [
      'user',
      'session',
      'topics',
      'rights',
      'endsIn',
    ]);
    if (body.user === undefined) throw missingFields(['user']);
    const userId = parseUser(body.user);
    assertKeyAllowsUser(key, userId, 'user');
    const id = getForeignSessionId(userId, parseLabel(body.session));
    const topics = parseTopicList('topics', body.topics);
    assertKeyAllowsTopics(key, topics, 'topics');
    const givenRights = parseRightsField('rights', body.rights);
    assertKeyAllowsTopics(key, [...givenRights.keys()], 'rights');
    const rights = addListening(givenRights, topics);
    const expiresAt = wallClock() + parseEndsIn(body.endsIn);
    const session = { id, userId, expiresAt, headSeq: key.headSeq, isForeign: true, rights };
    return mintToken(parts, session, topics);
  });
}

function parseLabel(value: unknown = ''): string {
  if (typeof value === 'string' && value.length <= labelLengthMax) return value;
  throw invalidField('session', `must be a text of at most ${labelLengthMax} characters`);
}

function parseEndsIn(value: unknown = endsInMs.default): number {
  const { min, max } = endsInMs;
  if (Number.isInteger(value) && Number(value) >= min && Number(value) <= max) return Number(value);
  throw invalidField('endsIn', 'must be whole milliseconds, from 1 minute (60000) to 30 days');
}
