/** A stream that has claimed a stream token from an older stream. */
export interface Takeover {
  readonly tokenHash: string;
  /** Version of the token's row after the takeover. */
  readonly version: number;
  readonly streamId: string;
}

/** Selects the streams that a disconnect closes: all streams of a user, or some of them. */
export interface Disconnect {
  readonly userId: string;
  /** Limits the disconnect to streams of these sessions. */
  readonly sessionIds?: readonly string[] | undefined;
  /** Limits the disconnect to the streams of the tokens with these public ids. */
  readonly streams?: readonly string[] | undefined;
  /** Whether the clients are asked to get a new stream token. */
  readonly renew: boolean;
}

/** A new end for the streams of a stream token. */
export interface Extension {
  readonly tokenHash: string;
  /** The new time at which streams of the token end, epoch ms. */
  readonly endsAt: number;
}

/** Users who become members of a topic, or stop being members. */
export interface TopicUsers {
  readonly topic: string;
  readonly userIds: readonly string[];
}

/** Topics of the streams of a token. */
export interface TokenTopics {
  readonly tokenHash: string;
  readonly topics: readonly string[];
}

/**
 * An entry of the event log that changes open streams, such as their end or their topics, or that marks a change of an API
 * key. It has a sequence number like an event, every process applies it in sequence order, and no client receives it.
 */
export type ControlEntry =
  /** The streams of these sessions end. */
  | { readonly kind: 'sessions_ended'; readonly sessionIds: readonly string[] }
  /** The older streams of these tokens end. */
  | { readonly kind: 'tokens_taken'; readonly takeovers: readonly Takeover[] }
  /** Every stream of this token ends, because its URL has leaked. */
  | { readonly kind: 'token_revoked'; readonly tokenHash: string }
  /** These streams of a user end. */
  | { readonly kind: 'disconnected'; readonly disconnect: Disconnect }
  /** The streams of this token end later, or earlier, than before. */
  | { readonly kind: 'token_extended'; readonly extension: Extension }
  /**
   * Marks the revocation of an API key. Processes need not apply this entry: events that the key published have
   * lower numbers, and later events of the key are rejected when they are appended.
   */
  | { readonly kind: 'key_revoked'; readonly keyId: string }
  /** Marks a change of the limits of an API key. Processes need not apply this entry, as for `key_revoked`. */
  | { readonly kind: 'key_changed'; readonly keyId: string }
  /** The streams of these users receive events of the topic with higher numbers. */
  | { readonly kind: 'members_added'; readonly members: TopicUsers }
  /** The streams of these users receive events of the topic only if they have chosen it. */
  | { readonly kind: 'members_removed'; readonly members: TopicUsers }
  /** The streams of these users receive no events of the topic. */
  | { readonly kind: 'topic_revoked'; readonly members: TopicUsers }
  /** The streams of this token receive events of the topics with higher numbers. */
  | { readonly kind: 'topics_chosen'; readonly choice: TokenTopics }
  /** The client has given up topics that it had chosen. Members still receive their events. */
  | { readonly kind: 'topics_given_up'; readonly choice: TokenTopics }
  /** The chosen topics are no longer allowed. Members still receive their events. */
  | { readonly kind: 'choices_removed'; readonly choice: TokenTopics };

/** Keeps entries below 64 KiB, the limit of the smallest column type that stores them. */
export const itemsPerEntryMax = 200;

/** Returns the entries that end the streams of these sessions: one per 200 sessions. */
export function sessionsEnded(sessionIds: readonly string[]): ControlEntry[] {
  return inBatches(sessionIds).map((batch) => ({ kind: 'sessions_ended', sessionIds: batch }));
}

/** Returns the entries that end the replaced streams: one per 200 takeovers. */
export function tokensTaken(takeovers: readonly Takeover[]): ControlEntry[] {
  return inBatches(takeovers).map((batch) => ({ kind: 'tokens_taken', takeovers: batch }));
}

/** Returns the entries of a change of members of a topic: one per 200 users. */
export function membersChanged(
  kind: 'members_added' | 'members_removed' | 'topic_revoked',
  { topic, userIds }: TopicUsers,
): ControlEntry[] {
  return inBatches(userIds).map((batch) => ({ kind, members: { topic, userIds: batch } }));
}

/** Returns the text of an entry, to be stored. */
export function formatControlEntry(entry: ControlEntry): string {
  return JSON.stringify(entry);
}

/**
 * Parses a stored entry. Returns undefined for an unknown kind and for invalid fields, which a newer version
 * may have written. Throws for text that is not JSON.
 */
export function parseControlEntry(text: string): ControlEntry | undefined {
  const { kind, ...fields } = JSON.parse(text) as Record<string, unknown>;
  if (kind === 'sessions_ended' && isTextArray(fields['sessionIds']))
    return { kind, sessionIds: fields['sessionIds'] };
  if (kind === 'tokens_taken' && isTakeovers(fields['takeovers']))
    return { kind, takeovers: fields['takeovers'] };
  if (kind === 'token_revoked' && typeof fields['tokenHash'] === 'string')
    return { kind, tokenHash: fields['tokenHash'] };
  if (kind === 'disconnected' && isDisconnect(fields['disconnect']))
    return { kind, disconnect: fields['disconnect'] };
  if (kind === 'token_extended' && isExtension(fields['extension']))
    return { kind, extension: fields['extension'] };
  if ((kind === 'key_revoked' || kind === 'key_changed') && typeof fields['keyId'] === 'string')
    return { kind, keyId: fields['keyId'] };
  if (isMemberKind(kind) && isTopicUsers(fields['members']))
    return { kind, members: fields['members'] };
  if (isChoiceKind(kind) && isTokenTopics(fields['choice']))
    return { kind, choice: fields['choice'] };
  return undefined;
}

function inBatches<Item>(items: readonly Item[]): (readonly Item[])[] {
  const batches: (readonly Item[])[] = [];
  for (let start = 0; start < items.length; start += itemsPerEntryMax)
    batches.push(items.slice(start, start + itemsPerEntryMax));
  return batches;
}

function isTakeovers(value: unknown): value is readonly Takeover[] {
  return Array.isArray(value) && value.every(isTakeover);
}

function isTakeover(value: unknown): value is Takeover {
  const { tokenHash, version, streamId } = (value ?? {}) as Record<string, unknown>;
  return (
    typeof tokenHash === 'string' && Number.isSafeInteger(version) && typeof streamId === 'string'
  );
}

function isDisconnect(value: unknown): value is Disconnect {
  const { userId, sessionIds, streams, renew } = (value ?? {}) as Record<string, unknown>;
  const areValid = [sessionIds, streams].every((ids) => ids === undefined || isTextArray(ids));
  return typeof userId === 'string' && typeof renew === 'boolean' && areValid;
}

function isExtension(value: unknown): value is Extension {
  const { tokenHash, endsAt } = (value ?? {}) as Record<string, unknown>;
  return typeof tokenHash === 'string' && Number.isSafeInteger(endsAt);
}

type MemberKind = Extract<ControlEntry, { members: unknown }>['kind'];
type ChoiceKind = Extract<ControlEntry, { choice: unknown }>['kind'];

function isMemberKind(kind: unknown): kind is MemberKind {
  return kind === 'members_added' || kind === 'members_removed' || kind === 'topic_revoked';
}

function isChoiceKind(kind: unknown): kind is ChoiceKind {
  return kind === 'topics_chosen' || kind === 'topics_given_up' || kind === 'choices_removed';
}

function isTopicUsers(value: unknown): value is TopicUsers {
  const { topic, userIds } = (value ?? {}) as Record<string, unknown>;
  return typeof topic === 'string' && isTextArray(userIds);
}

function isTokenTopics(value: unknown): value is TokenTopics {
  const { tokenHash, topics } = (value ?? {}) as Record<string, unknown>;
  return typeof tokenHash === 'string' && isTextArray(topics);
}

function isTextArray(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}
