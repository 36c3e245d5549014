import type { EventSubscriber } from '../event-log/event-log.js';
import type { Audience } from '../events/audience.js';
import { allAudience, sessionAudience } from '../events/audience.js';
import type { ControlEntry } from '../events/control-entry.js';
import type { Frame } from '../events/frame.js';
import { Counts } from '../util/counts.js';
import { TimerWheel } from '../util/timer-wheel.js';
import type { CloseReason, EventStream, Subscriber } from './event-stream.js';
import { PendingOpens } from './pending-opens.js';

export interface RegistryLimits {
  readonly streamsMax: number;
  readonly perUserMax: number;
  readonly perIpMax: number;
}

/** Interval between two calls of `Registry.tick`. */
export const tickMs = 1000;

const noStreams: ReadonlySet<EventStream> = new Set();

interface AddressedEvent {
  readonly audiences: readonly Audience[];
}

/**
 * Why no other stream can be opened now: `draining` during shutdown, or else the limit that is reached,
 * in total (`all`), per user or per IP key.
 */
export type RefusalReason = 'draining' | 'all' | 'user' | 'ip';

/**
 * Holds all open streams of this process, indexed by audience, so that the cost of an event depends
 * only on its recipients. One timer wheel schedules heartbeats and stall detection.
 */
export class Registry implements EventSubscriber {
  readonly pendingOpens = new PendingOpens();
  readonly #limits: RegistryLimits;
  readonly #streams = new Map<Audience, Set<EventStream>>();
  readonly #streamsByToken = new Map<string, EventStream>();
  readonly #perUser = new Counts<string>();
  readonly #perIp = new Counts<string>();
  readonly #timerWheel: TimerWheel<EventStream>;
  readonly #monotonicClock: () => number;
  #deliveries = 0;
  #draining = false;

  constructor({
    limits,
    monotonicClock,
  }: { limits: RegistryLimits; monotonicClock: () => number }) {
    this.#limits = limits;
    this.#monotonicClock = monotonicClock;
    this.#timerWheel = new TimerWheel(monotonicClock());
  }

  /** The number of open streams. */
  get size(): number {
    return this.streams.size;
  }

  /** Every open stream. The set is not a copy: it changes whenever a stream opens or ends. */
  get streams(): ReadonlySet<EventStream> {
    return this.#streams.get(allAudience) ?? noStreams;
  }

  /** Number of users with an open stream in this process. */
  get users(): number {
    return this.#perUser.size;
  }

  /** Total number of logged events pushed to streams. */
  get deliveries(): number {
    return this.#deliveries;
  }

  /** Whether no index contains a stream. For tests that check for leaks. */
  get isEmpty(): boolean {
    const indexes = [this.#streams, this.#streamsByToken, this.#perUser, this.#perIp];
    const timers = this.#timerWheel.size;
    return timers + this.pendingOpens.size === 0 && indexes.every((index) => index.size === 0);
  }

  /**
   * Returns why a stream for this subscriber cannot be opened now. A stream that replaces an older
   * one of the same token is exempt from the limits.
   */
  checkLimits(
    subscriber: Pick<Subscriber, 'userId' | 'ip' | 'tokenHash'>,
  ): RefusalReason | undefined {
    if (this.#draining) return 'draining';
    if (subscriber.tokenHash !== undefined && this.#streamsByToken.has(subscriber.tokenHash))
      return undefined;
    const { streamsMax, perUserMax, perIpMax } = this.#limits;
    if (this.size >= streamsMax) return 'all';
    if (this.#perUser.get(subscriber.userId) >= perUserMax) return 'user';
    if (this.#perIp.get(subscriber.ip) >= perIpMax) return 'ip';
    return undefined;
  }

  /** Adds a stream. An older one with the same stream token is closed as `replaced`. */
  add(stream: EventStream): void {
    const { subscriber } = stream;
    if (subscriber.tokenHash !== undefined) {
      this.#streamsByToken
        .get(subscriber.tokenHash)
        ?.close('replaced', { retryMs: replacedRetryMs });
      this.#streamsByToken.set(subscriber.tokenHash, stream);
    }
    for (const audience of subscriber.audiences) {
      const streams = this.#streams.get(audience);
      if (streams === undefined) this.#streams.set(audience, new Set([stream]));
      else streams.add(stream);
    }
    this.#perUser.add(subscriber.userId);
    this.#perIp.add(subscriber.ip);
    this.#timerWheel.set(stream, this.#monotonicClock());
  }

  /** Removes a stream that has ended. Does nothing for a stream that was never added. */
  remove(stream: EventStream): void {
    const { subscriber } = stream;
    if (this.#streams.get(allAudience)?.has(stream) !== true) return;
    if (
      subscriber.tokenHash !== undefined &&
      this.#streamsByToken.get(subscriber.tokenHash) === stream
    ) {
      this.#streamsByToken.delete(subscriber.tokenHash);
    }
    for (const audience of subscriber.audiences) {
      const streams = this.#streams.get(audience);
      streams?.delete(stream);
      if (streams?.size === 0) this.#streams.delete(audience);
    }
    this.#perUser.remove(subscriber.userId);
    this.#perIp.remove(subscriber.ip);
    this.#timerWheel.delete(stream);
  }

  /** Pushes a logged event to the streams of its audiences. Never waits, never throws. */
  deliver({ audiences }: AddressedEvent, frame: Frame): void {
    for (const audience of audiences) {
      const streams = this.#streams.get(audience);
      if (streams === undefined) continue;
      this.#deliveries += streams.size;
      for (const stream of streams) stream.push(frame);
    }
  }

  /**
   * Pushes a volatile event to the streams of its audiences that are live and whose unsent bytes are
   * under the soft limit.
   */
  deliverVolatile({ audiences }: AddressedEvent, frame: Frame): void {
    for (const audience of audiences) {
      for (const stream of this.#streams.get(audience) ?? []) {
        stream.pushVolatile(frame);
      }
    }
  }

  /** Applies a control entry to the open streams and to the streams that are being opened. */
  applyControl(entry: ControlEntry): void {
    this.pendingOpens.apply(entry);
    if (entry.kind === 'sessions_ended') this.closeSessions(entry.sessionIds, 'revoked');
  }

  /**
   * Closes every stream as `behind`, because entries were trimmed before they were delivered. When
   * clients reconnect, `stream.open` reports the loss, if any.
   */
  gap(): void {
    this.pendingOpens.gap();
    this.closeAll('behind');
  }

  /** Closes every stream of these sessions synchronously. */
  closeSessions(sessionIds: readonly string[], reason: CloseReason): void {
    for (const sessionId of sessionIds) {
      for (const stream of this.#getStreams(sessionAudience(sessionId))) stream.close(reason);
    }
  }

  /** Closes every stream synchronously. */
  closeAll(reason: CloseReason): void {
    for (const stream of this.#getStreams(allAudience)) stream.close(reason);
  }

  /** Returns the stream that is open with this token in this process. */
  findByToken(tokenHash: string): EventStream | undefined {
    return this.#streamsByToken.get(tokenHash);
  }

  /**
   * Sends heartbeats and closes stalled streams; call it every `tickMs`. Deadlines are handled at
   * the nearest tick, so up to half a second early or late.
   */
  tick(): void {
    const now = this.#monotonicClock() + tickMs / 2;
    for (const stream of this.#timerWheel.advance(now)) {
      const nextCallAt = stream.maintain(now);
      if (stream.isOpen) this.#timerWheel.set(stream, nextCallAt);
    }
  }

  get isDraining(): boolean {
    return this.#draining;
  }

  /** Refuses new streams as `draining` from now on. */
  startDraining(): void {
    this.#draining = true;
  }

  /** Closes up to `max` streams as `draining`. Returns the number of streams that are left. */
  drainSome(max: number, retryMs: () => number): number {
    for (const stream of this.#getStreams(allAudience).slice(0, max)) {
      stream.close('draining', { retryMs: retryMs() });
    }
    return this.size;
  }

  /** Returns a copy, because closing a stream removes it from the set. */
  #getStreams(audience: Audience): EventStream[] {
    return [...(this.#streams.get(audience) ?? [])];
  }
}

/**
 * `retry:` of a replaced stream. Long, because two clients with one stream token that ignore
 * `stream.close` would otherwise replace each other's stream again and again.
 */
export const replacedRetryMs = 60_000;
