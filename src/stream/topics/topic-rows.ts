import { type Audience, getTopic, topicAudience } from '../../events/audience.js';
import type { ControlEntry } from '../../events/control-entry.js';
import type { Reader } from '../../events/topic.js';

/** A topic of a stream. The stream receives events of the topic with numbers above `since`. */
export interface TopicRow {
  readonly topic: string;
  readonly since: number;
}

/** The stored rows of a stream: memberships of its user, and topics chosen for its token. */
export interface StoredRows {
  readonly memberships: readonly TopicRow[];
  readonly choices: readonly TopicRow[];
}

/** A control entry that changes the topics of streams. */
export type TopicEntry = Extract<ControlEntry, { members: unknown } | { choice: unknown }>;

/** How a control entry has changed the rows of a stream. */
export interface RowChange {
  /** Topics whose events the stream receives only now. */
  readonly added: readonly string[];
  /** Topics whose events the stream no longer receives. */
  readonly removed: readonly string[];
  /** Whether any row was added or removed. */
  readonly isChanged: boolean;
  /**
   * Whether the entry is a removal by the backend, not by the client. Its number is then stored as a loss of the user,
   * also if the stream had no row: a client that resumes below it gets `too_old`.
   */
  readonly isRemoval: boolean;
}

type Rows = ReadonlyMap<Audience, number>;

const noRows: Rows = new Map();

/** Rows of which a stream has none. */
export const noStoredRows: StoredRows = { memberships: [], choices: [] };

/**
 * The topics of one stream. A topic can have a row of either kind, and one of both: a membership and a choice. An
 * event is received if either of them covers it. Maps are replaced when they change, never changed, so a
 * `Reader` remains what it was when it was returned.
 */
export class TopicRows {
  readonly #audiences: readonly Audience[];
  #memberships: Rows;
  #choices: Rows;
  #reader: Reader | undefined;

  /** `audiences` are those that the stream has besides its topics. */
  constructor(audiences: readonly Audience[], { memberships, choices }: StoredRows) {
    this.#audiences = audiences;
    this.#memberships = toRows(memberships);
    this.#choices = toRows(choices);
  }

  /** What the stream receives now. */
  get reader(): Reader {
    this.#reader ??= { audiences: this.#audiences, topics: this.#merge() };
    return this.#reader;
  }

  /** The audience of each topic that has a row. */
  get topicAudiences(): Iterable<Audience> {
    return this.reader.topics.keys();
  }

  get membershipCount(): number {
    return this.#memberships.size;
  }

  /** The chosen topics in the order of their names. */
  get choices(): readonly TopicRow[] {
    const rows = [...this.#choices].map(([audience, since]) => ({
      topic: toTopic(audience),
      since,
    }));
    return rows.sort((a, b) => (a.topic < b.topic ? -1 : 1));
  }

  /** Whether the stream receives the event `seq` because of this topic. */
  covers(audience: Audience, seq: number): boolean {
    return covers(this.#memberships, audience, seq) || covers(this.#choices, audience, seq);
  }

  /**
   * Applies the control entry `seq`, which must name the user or the token of the stream. A row that is there is not
   * added again, and a row that was added after the entry is not removed.
   */
  apply(entry: TopicEntry, seq: number): RowChange {
    const [oldMemberships, oldChoices] = [this.#memberships, this.#choices];
    const topics = 'members' in entry ? [entry.members.topic] : entry.choice.topics;
    const audiences = topics.map(topicAudience);
    const { kind } = entry;
    if (kind === 'members_added') this.#memberships = withRows(oldMemberships, audiences, seq);
    if (kind === 'topics_chosen') this.#choices = withRows(oldChoices, audiences, seq);
    if (kind === 'members_removed' || kind === 'topic_revoked')
      this.#memberships = withoutRows(oldMemberships, audiences, seq);
    if (kind === 'topic_revoked' || kind === 'topics_given_up' || kind === 'choices_removed')
      this.#choices = withoutRows(oldChoices, audiences, seq);
    const isChanged = this.#memberships !== oldMemberships || this.#choices !== oldChoices;
    if (isChanged) this.#reader = undefined;
    // Only the named topics can differ. Merging all rows for each of many streams would take too long.
    const had = (one: Audience) => oldMemberships.has(one) || oldChoices.has(one);
    const has = (one: Audience) => this.#memberships.has(one) || this.#choices.has(one);
    const isRemoval =
      kind === 'members_removed' || kind === 'topic_revoked' || kind === 'choices_removed';
    return {
      added: audiences.filter((one) => has(one) && !had(one)).map(toTopic),
      removed: audiences.filter((one) => had(one) && !has(one)).map(toTopic),
      isChanged,
      isRemoval,
    };
  }

  /** Returns the lower number of each topic: with either row its events are received. */
  #merge(): Rows {
    if (this.#choices.size === 0) return this.#memberships;
    if (this.#memberships.size === 0) return this.#choices;
    const merged = new Map(this.#memberships);
    for (const [audience, since] of this.#choices)
      merged.set(audience, Math.min(since, merged.get(audience) ?? since));
    return merged;
  }
}

/**
 * Returns which topics differ between two readers of a stream. A topic that the later reader has since another number
 * counts as added.
 */
export function compareTopics(
  before: Reader['topics'],
  after: Reader['topics'],
): Pick<RowChange, 'added' | 'removed'> {
  const added = [...after.keys()].filter((one) => after.get(one) !== before.get(one));
  const removed = [...before.keys()].filter((one) => !after.has(one));
  return { added: added.map(toTopic), removed: removed.map(toTopic) };
}

function toRows(stored: readonly TopicRow[]): Rows {
  if (stored.length === 0) return noRows;
  return new Map(stored.map(({ topic, since }) => [topicAudience(topic), since]));
}

function toTopic(audience: Audience): string {
  return getTopic(audience) ?? '';
}

function covers(rows: Rows, audience: Audience, seq: number): boolean {
  const since = rows.get(audience);
  return since !== undefined && since < seq;
}

function withRows(rows: Rows, audiences: readonly Audience[], since: number): Rows {
  const missing = audiences.filter((audience) => !rows.has(audience));
  if (missing.length === 0) return rows;
  const all = new Map(rows);
  for (const audience of missing) all.set(audience, since);
  return all;
}

function withoutRows(rows: Rows, audiences: readonly Audience[], seq: number): Rows {
  const removed = audiences.filter((audience) => covers(rows, audience, seq));
  if (removed.length === 0) return rows;
  const rest = new Map(rows);
  for (const audience of removed) rest.delete(audience);
  return rest;
}
