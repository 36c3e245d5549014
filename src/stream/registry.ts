import type { EventSubscriber } from '../event-log/log-delivery.js';
import type { Audience } from '../events/audience.js';
import { allAudience, getTopic, sessionAudience, userAudience } from '../events/audience.js';
import type { ControlEntry } from '../events/control-entry.js';
import type { Frame } from '../events/frame.js';
import { Counts } from '../util/counts.js';
import { MultiMap } from '../util/multi-map.js';
import { TimerWheel } from '../util/timer-wheel.js';
import { TurnBudget } from '../util/turn-budget.js';
import type { CloseReason } from './control-events.js';
import type { EventStream, Subscriber } from './event-stream.js';
import { closeGradually } from './gradual-close.js';
import { RemoteStreams } from './open-streams/remote-streams.js';
import { type NumberedEntry, type PendingOpen, PendingOpens } from './pending-opens.js';
import { TopicIndex } from './topics/topic-index.js';
import type { TopicEntry } from './topics/topic-rows.js';

export interface RegistryLimits {
  readonly streamsMax: number;
  readonly perUserMax: number;
  readonly perIpMax: number;
}

/** Interval between two calls of `Registry.tick`. */
export const tickMs = 1000;

/** Number of streams that are maintained per event-loop iteration. */
const streamsPerSlice = 128;

/** Number of streams whose topics change per event-loop iteration, by one control entry or several. */
const topicChangesPerTurn = 200;

/** Number of streams of one token, in addition to the first, that may open although a limit is reached. */
const exemptPerTokenMax = 3;

interface AddressedEvent {
  readonly audiences: readonly Audience[];
}

/**
 * The reason why no other stream can be opened now: `draining` during shutdown, or else the limit that is
 * reached, in total (`all`), per user or per IP key.
 */
export type RefusalReason = 'draining' | 'all' | 'user' | 'ip';

/**
 * Holds all open streams of this process, indexed by audience, so that the cost of an event depends
 * only on its recipients. One timer wheel schedules heartbeats and stall detection.
 */
export class Registry implements EventSubscriber {
  readonly pendingOpens = new PendingOpens();
  /** Streams in other processes, which count towards the limit per user. */
  readonly remoteStreams = new RemoteStreams();
  readonly #limits: RegistryLimits;
  readonly #random: () => number;
  readonly #streams = new MultiMap<Audience, EventStream>();
  readonly #topics = new TopicIndex();
  readonly #topicChanges = new TurnBudget(topicChangesPerTurn);
  readonly #streamsByToken = new MultiMap<string, EventStream>();
  readonly #perUser = new Counts<string>();
  readonly #perIp = new Counts<string>();
  readonly #timerWheel: TimerWheel<EventStream>;
  readonly #monotonicClock: () => number;
  #deliveryCount = 0;
  #isDraining = false;

  constructor({
    limits,
    monotonicClock,
    random,
  }: { limits: RegistryLimits; monotonicClock: () => number; random: () => number }) {
    this.#limits = limits;
    this.#random = random;
    this.#monotonicClock = monotonicClock;
    this.#timerWheel = new TimerWheel(monotonicClock());
  }

  /** The number of open streams. */
  get size(): number {
    return this.streams.size;
  }

  /** Every open stream. The set is not a copy: it changes whenever a stream opens or ends. */
  get streams(): ReadonlySet<EventStream> {
    return this.#streams.get(allAudience);
  }

  /** The open streams of a user in this process. The set is not a copy. */
  getUserStreams(userId: string): ReadonlySet<EventStream> {
    return this.#streams.get(userAudience(userId));
  }

  /** Number of users with an open stream in this process. */
  get userCount(): number {
    return this.#perUser.size;
  }

  /** Number of topics that have an open stream in this process. */
  get topicCount(): number {
    return this.#topics.size;
  }

  /** Number of pushes of logged events to streams since the start. */
  get deliveryCount(): number {
    return this.#deliveryCount;
  }

  /** Whether no index contains a stream. For tests that check for leaks. */
  get isEmpty(): boolean {
    const indexes = [
      ...[this.#streams, this.#streamsByToken, this.#perUser, this.#perIp],
      this.#topics,
    ];
    const timers = this.#timerWheel.size;
    return timers + this.pendingOpens.size === 0 && indexes.every((index) => index.size === 0);
  }

  /**
   * Returns the reason why a stream for this subscriber cannot be opened now; undefined if it can. While a
   * stream of the same token is open, up to three others are exempt from the limits, because only one stream of
   * the token remains when no claim or takeover is in progress. See `RemoteStreams` for streams in other
   * processes.
   */
  checkLimits(
    subscriber: Pick<Subscriber, 'userId' | 'ipKey' | 'tokenHash'> & {
      readonly publicId?: string | undefined;
    },
  ): RefusalReason | undefined {
    if (this.#isDraining) return 'draining';
    const { userId, tokenHash, publicId } = subscriber;
    const sameTokenCount = tokenHash === undefined ? 0 : this.#streamsByToken.get(tokenHash).size;
    if (sameTokenCount > 0 && sameTokenCount <= exemptPerTokenMax) return undefined;
    const { streamsMax, perUserMax, perIpMax } = this.#limits;
    if (this.size >= streamsMax) return 'all';
    const remoteCount = this.remoteStreams.count(userId, this.getUserStreams(userId), publicId);
    if (this.#perUser.get(userId) + remoteCount >= perUserMax) return 'user';
    if (this.#perIp.get(subscriber.ipKey) >= perIpMax) return 'ip';
    return undefined;
  }

  /**
   * Adds a stream, ends its pending open, and applies the control entries that were kept meanwhile. These
   * may close the stream.
   */
  add(stream: EventStream, pendingOpen: PendingOpen): void {
    const { subscriber } = stream;
    if (subscriber.tokenHash !== undefined) this.#streamsByToken.add(subscriber.tokenHash, stream);
    for (const audience of subscriber.audiences) this.#streams.add(audience, stream);
    this.#topics.add(stream);
    this.#perUser.add(subscriber.userId);
    this.#perIp.add(subscriber.ipKey);
    this.#timerWheel.set(stream, this.#monotonicClock());
    this.pendingOpens.remove(pendingOpen);
    for (const entry of pendingOpen.entries) this.#applyTo(stream, entry);
    if (pendingOpen.isIncomplete) stream.close('behind');
  }

  /** Removes a stream that has ended. Does nothing for a stream that was never added. */
  remove(stream: EventStream): void {
    const { subscriber } = stream;
    if (!this.streams.has(stream)) return;
    if (subscriber.tokenHash !== undefined)
      this.#streamsByToken.delete(subscriber.tokenHash, stream);
    for (const audience of subscriber.audiences) this.#streams.delete(audience, stream);
    this.#topics.remove(stream);
    this.#perUser.remove(subscriber.userId);
    this.#perIp.remove(subscriber.ipKey);
    this.#timerWheel.delete(stream);
  }

  /**
   * Pushes a logged event to the streams of its audiences, for a topic to those that received it at the place of the
   * event. Never waits, never throws.
   */
  deliver({ audiences }: AddressedEvent, frame: Frame): void {
    for (const audience of audiences) {
      if (isOfTopic(audience)) {
        this.#deliveryCount += this.#topics.deliver(audience, frame);
        continue;
      }
      const streams = this.#streams.get(audience);
      this.#deliveryCount += streams.size;
      for (const stream of streams) stream.push(frame);
    }
  }

  /**
   * Pushes a volatile event to the streams of its audiences that are live and whose unsent bytes are
   * under the soft limit, once to each. `stamp` is the head in the snapshot in which the event was accepted, or the
   * number of an event that was appended with it: a stream receives the event because of a topic only if the topic
   * was added up to there.
   */
  deliverVolatile({ audiences }: AddressedEvent, frame: Frame, stamp: number): void {
    const found = audiences.map((audience) =>
      isOfTopic(audience) ? this.#topics.find(audience, stamp + 1) : this.#streams.get(audience),
    );
    const [first = []] = found;
    const streams = found.length === 1 ? first : new Set(found.flatMap((some) => [...some]));
    for (const stream of streams) stream.pushVolatile(frame);
  }

  /**
   * Applies a control entry to open streams, and keeps it for the streams that are being opened. Resolves when it has
   * been applied to all of them: a change of topics to at most 200 streams per turn of the event loop, other changes at
   * once.
   */
  applyControl(entry: ControlEntry, seq: number): Promise<void> | undefined {
    this.pendingOpens.keep({ entry, seq });
    if ('members' in entry || 'choice' in entry) return this.#applyTopicEntry(entry, seq);
    this.#apply({ entry, seq });
    return undefined;
  }

  /**
   * Closes every stream as `behind`, gradually, because entries were trimmed before they were applied.
   * From now on the streams write only their closing frames. When clients reconnect, `stream.open` reports the
   * loss, if any.
   */
  handleGap(): void {
    this.pendingOpens.markAllIncomplete();
    const streams = [...this.streams];
    for (const stream of streams) stream.freeze();
    void closeGradually(streams, { reason: 'behind', random: this.#random });
  }

  /** Closes every stream synchronously. */
  closeAll(reason: CloseReason): void {
    for (const stream of [...this.streams]) stream.close(reason);
  }

  /**
   * Sends heartbeats and closes stalled streams. Call it every `tickMs`. Each deadline is handled at the
   * nearest tick, so up to half a second early or late. Streams are handled in slices of 128, between
   * which the event loop does other work.
   */
  tick(): void {
    const now = this.#monotonicClock() + tickMs / 2;
    this.#maintain(this.#timerWheel.advance(now), now);
  }

  #maintain(due: readonly EventStream[], now: number): void {
    for (const stream of due.slice(0, streamsPerSlice)) {
      const nextCallAt = stream.isOpen ? stream.maintain(now) : 0;
      if (stream.isOpen) this.#timerWheel.set(stream, nextCallAt);
    }
    if (due.length > streamsPerSlice)
      setImmediate(() => this.#maintain(due.slice(streamsPerSlice), now));
  }

  get isDraining(): boolean {
    return this.#isDraining;
  }

  /** Refuses new streams as `draining` from now on. */
  startDraining(): void {
    this.#isDraining = true;
  }

  /** Applies a control entry to a stream that was being opened. */
  #applyTo(stream: EventStream, { entry, seq }: NumberedEntry): void {
    if (!('members' in entry || 'choice' in entry)) this.#apply({ entry, seq }, stream);
    else if (this.#isNamed(stream, entry) && stream.headAtOpen < seq)
      this.#topics.apply(stream, entry, seq);
  }

  #applyTopicEntry(entry: TopicEntry, seq: number): Promise<void> | undefined {
    const found =
      'members' in entry
        ? entry.members.userIds.flatMap((userId) => [...this.getUserStreams(userId)])
        : [...this.#streamsByToken.get(entry.choice.tokenHash)];
    const affected = found.filter(({ headAtOpen }) => headAtOpen < seq);
    return this.#topicChanges.run(affected, (stream) => this.#topics.apply(stream, entry, seq));
  }

  #isNamed({ subscriber }: EventStream, entry: TopicEntry): boolean {
    return 'members' in entry
      ? entry.members.userIds.includes(subscriber.userId)
      : entry.choice.tokenHash === subscriber.tokenHash;
  }

  /** Applies a control entry that changes no topics to all open streams that it affects, or only to `stream`. */
  #apply({ entry, seq }: NumberedEntry, stream?: EventStream): void {
    const apply = (found: ReadonlySet<EventStream>, change: (each: EventStream) => void) => {
      const affected = stream === undefined ? [...found] : found.has(stream) ? [stream] : [];
      // All data of a stream was read after its `headAtOpen`, so the data reflects the entries up to that number.
      for (const each of affected) if (each.headAtOpen < seq) change(each);
    };
    if (entry.kind === 'sessions_ended') {
      for (const sessionId of entry.sessionIds)
        apply(this.#streams.get(sessionAudience(sessionId)), (each) => each.close('revoked'));
    }
    if (entry.kind === 'disconnected') {
      const { userId, sessionIds, streams, renew } = entry.disconnect;
      const isWholeUser = sessionIds === undefined && streams === undefined;
      apply(this.#streams.get(userAudience(userId)), (each) => {
        const isSelected =
          isWholeUser ||
          sessionIds?.includes(each.subscriber.sessionId) === true ||
          streams?.includes(each.publicId) === true;
        if (isSelected) each.close('revoked', { renew });
      });
    }
    if (entry.kind === 'token_extended') {
      const { tokenHash, endsAt } = entry.extension;
      apply(this.#streamsByToken.get(tokenHash), (each) => {
        each.endsAt = endsAt;
      });
    }
    if (entry.kind === 'token_revoked')
      apply(this.#streamsByToken.get(entry.tokenHash), (each) => each.close('revoked'));
    if (entry.kind === 'tokens_taken') {
      for (const takeover of entry.takeovers)
        apply(this.#streamsByToken.get(takeover.tokenHash), (each) => each.applyTakeover(takeover));
    }
  }
}

function isOfTopic(audience: Audience): boolean {
  return getTopic(audience) !== undefined;
}
