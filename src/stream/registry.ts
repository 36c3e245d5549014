import type { EventSubscriber } from '../event-log/event-log.js';
import type { Audience } from '../events/audience.js';
import { allAudience, sessionAudience } from '../events/audience.js';
import type { Frame } from '../events/frame.js';
import { Counts } from '../util/counts.js';
import { TimerWheel } from '../util/timer-wheel.js';
import type { CloseReason, EventStream, Subscriber } from './event-stream.js';

export interface RegistryLimits {
  readonly streamsMax: number;
  readonly perUserMax: number;
  readonly perIpMax: number;
}

/** Between two calls of `Registry.tick`. */
export const tickMs = 1000;

const noStreams: ReadonlySet<EventStream> = new Set();

interface Addressed {
  readonly audiences: readonly Audience[];
}

/** Why one more stream cannot be had now. */
export type RefusalReason = 'draining' | 'all' | 'user' | 'ip';

/**
 * Who is connected. Connections are indexed by the audiences they listen to, so an event costs what
 * its own audience costs. Also keeps the one timer wheel.
 */
export class Registry implements EventSubscriber {
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

  /** Every open stream. To be read at once: it changes with each that opens or ends. */
  get streams(): ReadonlySet<EventStream> {
    return this.#streams.get(allAudience) ?? noStreams;
  }

  /** Users with an open stream in this process. */
  get users(): number {
    return this.#perUser.size;
  }

  /** Events handed to connections, ever. */
  get deliveries(): number {
    return this.#deliveries;
  }

  /** Whether nothing is left of any connection: for tests that count what was closed. */
  get isEmpty(): boolean {
    const indexes = [this.#streams, this.#streamsByToken, this.#perUser, this.#perIp];
    return this.#timerWheel.size === 0 && indexes.every((part) => part.size === 0);
  }

  /** Why a stream for this reader cannot be opened now; a stream that it would replace is let off. */
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

  /** Takes in a connection; an older one on the same stream token ends as `replaced`. */
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

  /** Forgets a connection that has ended. Safe for one that was never added. */
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

  /** Hands an event of the log to everyone it is for. A plain loop: never waits, never throws. */
  deliver({ audiences }: Addressed, frame: Frame): void {
    for (const audience of audiences) {
      const streams = this.#streams.get(audience);
      if (streams === undefined) continue;
      this.#deliveries += streams.size;
      for (const stream of streams) stream.push(frame);
    }
  }

  /** Hands an event that is not in the log to everyone it is for who is live and not behind. */
  deliverVolatile({ audiences }: Addressed, frame: Frame): void {
    for (const audience of audiences) {
      for (const stream of this.#streams.get(audience) ?? []) {
        stream.pushVolatile(frame);
      }
    }
  }

  /** Ends every stream: events are gone before they were delivered; on return clients learn that. */
  gap(): void {
    this.closeAll('behind');
  }

  /** Ends every stream of these sessions, at once. */
  closeSessions(sessionIds: readonly string[], reason: CloseReason): void {
    for (const sessionId of sessionIds) {
      for (const stream of this.#getStreams(sessionAudience(sessionId))) stream.close(reason);
    }
  }

  /** Ends every stream, at once. */
  closeAll(reason: CloseReason): void {
    for (const stream of this.#getStreams(allAudience)) stream.close(reason);
  }

  /** The stream that is open on a token in this process. */
  findByToken(tokenHash: string): EventStream | undefined {
    return this.#streamsByToken.get(tokenHash);
  }

  /**
   * To be called every `tickMs`: heartbeats and stalled clients. What has a time is done at
   * the tick that is nearest to it, so half a second early or late.
   */
  tick(): void {
    const now = this.#monotonicClock() + tickMs / 2;
    for (const stream of this.#timerWheel.advance(now)) {
      const next = stream.maintain(now);
      if (stream.isOpen) this.#timerWheel.set(stream, next);
    }
  }

  get isDraining(): boolean {
    return this.#draining;
  }

  /** From here on new streams are refused as `draining`. */
  startDraining(): void {
    this.#draining = true;
  }

  /** Ends up to `most` streams as `draining`. Answers how many are left. */
  drainSome(max: number, retryMs: () => number): number {
    for (const stream of this.#getStreams(allAudience).slice(0, max)) {
      stream.close('draining', { retryMs: retryMs() });
    }
    return this.size;
  }

  /** A copy: closing takes connections out of the set. */
  #getStreams(audience: Audience): EventStream[] {
    return [...(this.#streams.get(audience) ?? [])];
  }
}

/** Long, or a client that ignores `stream.close` would take the stream back at once, and so on. */
export const replacedRetryMs = 60_000;
