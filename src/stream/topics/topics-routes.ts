import { Failure } from '../../errors.js';
import type { EventLog } from '../../event-log/event-log.js';
import type { Exchange } from '../../http/exchange.js';
import { json, type Reply } from '../../http/reply.js';
import { type Route, route } from '../../http/router.js';
import {
  invalidField,
  missingFields,
  parseStrictBody,
  refuseQuery,
} from '../../http/strict-fields.js';
import type { StreamToken, StreamTokens } from '../tokens/stream-token.js';
import type { Choices, TokenChoices } from './choices.js';
import { parseTopicList, topicBodyBytesMax } from './topic-list.js';

export interface TopicsRouteParts {
  readonly tokens: Pick<StreamTokens, 'find'>;
  readonly choices: Pick<Choices, 'read' | 'change'>;
  readonly eventLog: Pick<EventLog, 'format' | 'tryCatchUp'>;
  /** See `StreamAccess`. */
  readonly access: {
    parseCredential(exchange: Exchange): string;
    findLiveSession(sessionId: string): Promise<object | undefined>;
    checkStreamRate(exchange: Exchange): void;
    checkTokenRate(exchange: Exchange, userId: string): void;
  };
}

/**
 * Creates the routes `GET` and `POST /stream/topics`, which list and change the chosen topics of the stream token
 * in the Authorization header. A change applies to all streams of the token; when the answer is sent, those of this
 * process have it. The token needs no open stream.
 */
export function topicsRoutes(parts: TopicsRouteParts): Route[] {
  const { choices, eventLog, access } = parts;
  return [
    route('GET', '/stream/topics', async (exchange) => {
      const token = await findToken(parts, exchange);
      return toReply(eventLog, await choices.read(token));
    }),

    route('POST', '/stream/topics', async (exchange) => {
      const credential = access.parseCredential(exchange);
      access.checkStreamRate(exchange);
      refuseQuery(exchange.query);
      const change = parseChange(await exchange.body({ bytesMax: topicBodyBytesMax }));
      const token = await findLive(parts, credential);
      access.checkTokenRate(exchange, token.userId);
      const changed = await choices.change(token, change);
      await eventLog.tryCatchUp();
      return toReply(eventLog, changed);
    }),
  ];
}

function parseChange(body: unknown) {
  const fields = parseStrictBody(body, ['add', 'remove']);
  if (fields.add === undefined && fields.remove === undefined) throw missingFields(['add']);
  const add = parseTopicList('add', fields.add);
  const remove = parseTopicList('remove', fields.remove);
  if (remove.some((topic) => add.includes(topic)))
    throw invalidField('remove', 'must have no topic that add has');
  return { add, remove };
}

function findToken(parts: TopicsRouteParts, exchange: Exchange): Promise<StreamToken> {
  const credential = parts.access.parseCredential(exchange);
  parts.access.checkStreamRate(exchange);
  refuseQuery(exchange.query);
  return findLive(parts, credential);
}

/** Throws `invalid_token` and `expired_token` for a token with which no stream could be opened. */
async function findLive(
  { tokens, access }: TopicsRouteParts,
  credential: string,
): Promise<StreamToken> {
  const token = await tokens.find(credential, { isOpen: true });
  const isLocal = token.endsAt === undefined;
  if (isLocal && (await access.findLiveSession(token.sessionId)) === undefined)
    throw new Failure('invalid_token', 'Cannot use stream token: its session has ended');
  return token;
}

function toReply(
  eventLog: TopicsRouteParts['eventLog'],
  { choices, memberships, headSeq }: TokenChoices,
): Reply {
  const topics = choices.map(({ topic, since }) => ({ topic, after: eventLog.format(since) }));
  const body = { topics, memberships, id: eventLog.format(headSeq) };
  return json(200, body, { 'cache-control': 'no-store' });
}
