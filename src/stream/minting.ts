import type { EventLog } from '../event-log/event-log.js';
import type { TopicRights } from '../events/topic-rights.js';
import { json, type Reply } from '../http/reply.js';
import type { LiveSession } from './session-checks.js';
import { getPublicId, hashToken, type StreamTokens } from './tokens/stream-token.js';
import type { ConfirmRights } from './topics/token-rights.js';

/** A session in which a stream token is minted. */
export interface MintingSession extends LiveSession {
  readonly isForeign: boolean;
  /**
   * The newest entry of the event log in a snapshot that was read before the session, or with it. See
   * `NewStreamToken.mintedSeq`.
   */
  readonly headSeq: number;
  /** The topics that its clients may choose. */
  readonly rights: TopicRights;
  /** Whether the account of the user has rights of its own. */
  readonly hasOwnRights?: boolean | undefined;
  /** Absent for rights that cannot change. */
  readonly confirmRights?: ConfirmRights | undefined;
}

export interface MintingParts {
  readonly eventLog: Pick<EventLog, 'format'>;
  readonly tokens: Pick<StreamTokens, 'mint' | 'lifeMs'>;
}

/**
 * Mints a stream token and returns the reply that contains it. The token begins at the head of the session's
 * snapshot, with these topics, which must be within the rights. Throws the errors of `StreamTokens.mint`.
 */
export async function mintToken(
  { eventLog, tokens }: MintingParts,
  session: MintingSession,
  topics: readonly string[],
): Promise<Reply> {
  const { id: sessionId, userId, expiresAt: endsAt, headSeq: mintedSeq, isForeign } = session;
  const { rights, hasOwnRights } = session;
  // Without a lock, tokens are inserted together. One that just misses the first rights of its account has none.
  const confirmRights = hasOwnRights === true ? session.confirmRights : undefined;
  const id = eventLog.format(mintedSeq);
  const streamToken = await tokens.mint({
    ...{ userId, sessionId, beginning: id, mintedSeq, rights, confirmRights, topics },
    ...(isForeign && { endsAt }),
  });
  const stream = getPublicId(hashToken(streamToken));
  return json(
    200,
    { streamToken, expiresIn: tokens.lifeMs, stream, endsAt, id },
    { 'cache-control': 'no-store', pragma: 'no-cache' },
  );
}
