import type { Logger } from '../logging/logger.js';
import type { EventStream } from './event-stream.js';

/** A session that has not ended. It expires at `expiresAt` (epoch ms) unless it is refreshed. */
export interface LiveSession {
  readonly id: string;
  readonly userId: string;
  readonly expiresAt: number;
  /**
   * Whether the user has no account. The stream then ends at `expiresAt` unless its token is extended, and
   * the client can get a new token from where it got the first.
   */
  readonly isForeign?: boolean | undefined;
}

export interface SessionChecksParts {
  /** Returns the session, or undefined if it has ended. */
  readonly findLiveSession: (sessionId: string) => Promise<LiveSession | undefined>;
  readonly log: Logger;
  readonly wallClock: () => number;
}

/** Time until the lookup of a session is repeated after an error. */
const retryMs = 5000;

/**
 * Closes streams as `expired` when their sessions expire. The session of a local account may have been
 * refreshed, so it is looked up before its streams are closed. While the lookup fails, the streams stay open.
 */
export class SessionChecks {
  readonly #parts: SessionChecksParts;
  /** Time at which the session of each open stream must be looked up again, epoch ms. */
  readonly #expiries = new Map<EventStream, number>();
  /** The open streams of users without an account. */
  readonly #foreign = new Set<EventStream>();

  constructor(parts: SessionChecksParts) {
    this.#parts = parts;
  }

  /** The open streams. */
  get streams(): readonly EventStream[] {
    return [...this.#expiries.keys(), ...this.#foreign];
  }

  /** Adds an open stream with its session. */
  add(stream: EventStream, { expiresAt, isForeign }: LiveSession): void {
    if (isForeign === true) this.#foreign.add(stream);
    else this.#expiries.set(stream, expiresAt);
  }

  /** Removes a stream that has ended. */
  remove(stream: EventStream): void {
    this.#expiries.delete(stream);
    this.#foreign.delete(stream);
  }

  /** Looks up the sessions that may have expired, and closes expired streams. Call it every `tickMs`. */
  tick(): void {
    const now = this.#parts.wallClock();
    for (const stream of this.#foreign)
      if (stream.endsAt <= now) stream.close('expired', { renew: true });
    for (const [stream, expiresAt] of this.#expiries) {
      if (expiresAt > now) continue;
      this.#expiries.set(stream, Number.POSITIVE_INFINITY); // No second lookup until the first has returned.
      void this.#check(stream);
    }
  }

  /** Closes the stream as `expired` if its session has ended. Never rejects. */
  async #check(stream: EventStream): Promise<void> {
    const { findLiveSession, wallClock, log } = this.#parts;
    try {
      const session = await findLiveSession(stream.subscriber.sessionId);
      if (!stream.isOpen) return;
      if (session === undefined) return stream.close('expired');
      this.#expiries.set(stream, session.expiresAt);
    } catch (cause) {
      if (stream.isOpen) this.#expiries.set(stream, wallClock() + retryMs);
      log.warn({ cause, streamId: stream.id }, 'session could not be looked up');
    }
  }
}
