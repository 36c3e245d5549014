import type { EventLog } from '../../event-log/event-log.js';
import type { Exchange } from '../../http/exchange.js';
import { json, type Reply } from '../../http/reply.js';
import { type Route, serverRoute } from '../../http/router.js';
import { missingFields, parseStrictBody, refuseQuery } from '../../http/strict-fields.js';
import type { ServicePrincipal } from '../../identity/bearer.js';
import { assertKeyAllowsTopics } from '../../identity/topic-limits.js';
import { assertKeyAllowsUser } from '../../identity/user-prefix.js';
import type { Audit, AuditClient, AuditEvent, AuditFields } from '../../logging/audit.js';
import type { Memberships } from '../../stream/topics/memberships.js';
import type { Revocations } from '../../stream/topics/revocations.js';
import { listMembers } from './member-list.js';
import {
  assertUsersFit,
  bodyBytesMax,
  parseNewMembers,
  parseTopic,
  parseUsers,
} from './topic-fields.js';

export interface TopicRouteParts {
  /** Authenticates an API key with the scope `topics`. Throws failures with status 401 or 403. */
  readonly authenticate: (exchange: Exchange) => Promise<ServicePrincipal>;
  readonly memberships: Memberships;
  readonly revocations: Pick<Revocations, 'revoke'>;
  readonly eventLog: Pick<EventLog, 'format' | 'tryCatchUp'>;
  readonly audit: Pick<Audit, 'record'>;
  readonly toClient: (exchange: Exchange) => AuditClient;
}

/** Maximum number of users that an audit line names. */
const auditedUsersMax = 100;

/**
 * Creates the routes for memberships of topics: `POST` and `GET /v1/topics/members`, and `POST /v1/topics/revoke`.
 * When a change is answered, this process has applied it, and no event of the topic that is published later reaches
 * a user who was removed, in any process.
 */
export function topicRoutes(parts: TopicRouteParts): Route[] {
  return [
    serverRoute('POST', '/v1/topics/members', (exchange) => changeMembers(parts, exchange)),
    serverRoute('GET', '/v1/topics/members', async (exchange) => {
      const key = await parts.authenticate(exchange);
      return listMembers(parts, key, exchange.query);
    }),
    serverRoute('POST', '/v1/topics/revoke', (exchange) => revokeTopic(parts, exchange)),
  ];
}

async function changeMembers(parts: TopicRouteParts, exchange: Exchange): Promise<Reply> {
  const key = await parts.authenticate(exchange);
  refuseQuery(exchange.query);
  const fields = parseStrictBody(await exchange.body({ bytesMax: bodyBytesMax }), [
    'topic',
    'add',
    'remove',
  ]);
  if (fields.topic === undefined) throw missingFields(['topic']);
  const topic = parseTopic(fields.topic);
  const add = parseNewMembers(fields.add);
  const remove = parseUsers('remove', fields.remove);
  const added = add.map(({ userId }) => userId);
  assertUsersFit([...added, ...remove], 'add');
  assertKeyAllowsTopics(key, [topic], 'topic');
  for (const userId of added) assertKeyAllowsUser(key, userId, 'add');
  for (const userId of remove) assertKeyAllowsUser(key, userId, 'remove');
  const seq = await parts.memberships.change({ topic, add, remove });
  return complete(parts, exchange, seq, 'topic_members_changed', {
    ...{ keyId: key.keyId, topic, added: toAudited(added), removed: toAudited(remove) },
  });
}

async function revokeTopic(parts: TopicRouteParts, exchange: Exchange): Promise<Reply> {
  const key = await parts.authenticate(exchange);
  refuseQuery(exchange.query);
  const fields = parseStrictBody(await exchange.body({ bytesMax: bodyBytesMax }), [
    'topic',
    'users',
  ]);
  if (fields.topic === undefined) throw missingFields(['topic']);
  if (fields.users === undefined) throw missingFields(['users']);
  const topic = parseTopic(fields.topic);
  const userIds = parseUsers('users', fields.users);
  assertUsersFit(userIds, 'users');
  assertKeyAllowsTopics(key, [topic], 'topic');
  for (const userId of userIds) assertKeyAllowsUser(key, userId, 'users');
  const seq = await parts.revocations.revoke({ topic, userIds });
  return complete(parts, exchange, seq, 'topic_revoked', {
    ...{ keyId: key.keyId, topic, removed: toAudited(userIds) },
  });
}

/** Applies a change in this process, records it, and returns the reply with its position. */
async function complete(
  { eventLog, audit, toClient }: TopicRouteParts,
  exchange: Exchange,
  seq: number,
  event: AuditEvent,
  fields: AuditFields,
): Promise<Reply> {
  await eventLog.tryCatchUp();
  audit.record(event, { client: toClient(exchange), ...fields });
  return json(200, { id: eventLog.format(seq) }, { 'cache-control': 'no-store' });
}

function toAudited(userIds: readonly string[]) {
  return { count: userIds.length, userIds: userIds.slice(0, auditedUsersMax) };
}
