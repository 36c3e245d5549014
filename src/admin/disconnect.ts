import type { EventLog } from '../event-log/event-log.js';
import type { Exchange } from '../http/exchange.js';
import { json } from '../http/reply.js';
import { type Route, serverRoute } from '../http/router.js';
import {
  invalidField,
  missingFields,
  parseStrictBody,
  refuseQuery,
} from '../http/strict-fields.js';
import type { ServicePrincipal } from '../identity/bearer.js';
import { getForeignSessionId } from '../identity/foreign-session.js';
import { assertKeyAllowsUser } from '../identity/user-prefix.js';
import type { Audit, AuditClient } from '../logging/audit.js';
import type { Disconnects } from '../stream/disconnects.js';
import { parseUser } from './user-field.js';

export interface DisconnectRouteParts {
  /** Authenticates an API key with the scope `disconnect`. Throws failures with status 401 or 403. */
  readonly authenticate: (exchange: Exchange) => Promise<ServicePrincipal>;
  readonly disconnects: Pick<Disconnects, 'add'>;
  readonly eventLog: Pick<EventLog, 'format' | 'tryCatchUp'>;
  readonly audit: Pick<Audit, 'record'>;
  readonly toClient: (exchange: Exchange) => AuditClient;
  readonly wallClock: () => number;
}

const idsMax = 100;
const idLengthMax = 255;
/** Maximum time by which `issuedBefore` may be in the future, because the clock of a backend may be ahead. */
const futureMaxMs = 60_000;
/** Maximum age of `issuedBefore`: longer than the life of any JWT, so an older time would refuse no valid JWT. */
const pastMaxMs = 31 * 86_400_000;
/** In seconds, a time before the year 5138. In milliseconds, a time before March 1973. */
const secondsMax = 1e11;
const streamPattern = /^[0-9a-f]{32}$/;

/**
 * Creates the route `POST /v1/disconnect`, which ends streams of a user in every process. The route also voids
 * the stream tokens with which these streams could be opened again and, unless the request is limited to
 * `streams`, the JWTs. Events that are published after the response do not reach these streams. Sessions of
 * local accounts continue, so their users can get new stream tokens. `BODY_LIMIT` also limits the lists.
 */
export function disconnectRoute(parts: DisconnectRouteParts): Route {
  const { authenticate, disconnects, eventLog, audit, toClient, wallClock } = parts;
  return serverRoute('POST', '/v1/disconnect', async (exchange) => {
    const key = await authenticate(exchange);
    refuseQuery(exchange.query);
    const body = parseStrictBody(await exchange.body(), [
      'user',
      'sessions',
      'streams',
      'issuedBefore',
      'renew',
    ]);
    if (body.user === undefined) throw missingFields(['user']);
    const userId = parseUser(body.user);
    assertKeyAllowsUser(key, userId, 'user');
    const labels = parseIds('sessions', body.sessions, (id) => id.length <= idLengthMax);
    const streams = parseIds('streams', body.streams, (id) => streamPattern.test(id));
    const { renew = false } = body;
    if (typeof renew !== 'boolean') throw invalidField('renew', 'must be true or false');
    const seq = await disconnects.add({
      ...{ userId, streams, renew },
      sessionIds: labels?.flatMap((label) => toSessionIds(userId, label)),
      issuedBefore: parseIssuedBefore(body.issuedBefore, wallClock()),
    });
    await eventLog.tryCatchUp();
    const reason = labels === undefined && streams === undefined ? 'user' : 'streams';
    audit.record('user_disconnected', {
      ...{ client: toClient(exchange), keyId: key.keyId, userId, reason },
    });
    return json(200, { id: eventLog.format(seq) }, { 'cache-control': 'no-store' });
  });
}

function parseIds(
  field: string,
  value: unknown,
  isValid: (id: string) => boolean,
): readonly string[] | undefined {
  if (value === undefined) return undefined;
  const isList = Array.isArray(value) && value.length > 0 && value.length <= idsMax;
  if (isList && value.every((id) => typeof id === 'string' && isValid(id)))
    return [...new Set(value)];
  const expectedItems =
    field === 'streams'
      ? 'ids of streams (32 hex digits)'
      : `ids or labels of sessions, each of at most ${idLengthMax} characters`;
  throw invalidField(field, `must be a list of 1 to ${idsMax} ${expectedItems}`);
}

/**
 * Returns the ids of the sessions that a label can stand for. A ticket or an issuer gave the label to a session,
 * or the label is the id of a session of a local account.
 */
function toSessionIds(userId: string, label: string): readonly string[] {
  const foreignId = getForeignSessionId(userId, label);
  return /^[0-9a-f]{32}$/.test(label) ? [label, foreignId] : [foreignId];
}

function parseIssuedBefore(value: unknown, now: number): number {
  if (value === undefined) return now;
  const time = Number.isSafeInteger(value) ? Number(value) : Number.NaN;
  if (time >= now - pastMaxMs && time <= now + futureMaxMs) return time;
  const looksLikeSeconds = time >= 0 && time < secondsMax;
  throw invalidField(
    'issuedBefore',
    `must be a time in epoch milliseconds, from 31 days ago to a minute in the future${
      looksLikeSeconds ? '; this value looks like seconds' : ''
    }`,
  );
}
