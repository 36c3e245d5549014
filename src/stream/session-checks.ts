import type { Logger } from '../logging/logger.js';
import type { EventStream } from './event-stream.js';

/** A session that has not ended. It expires at `expiresAt` (epoch ms) unless it is refreshed. */
export interface LiveSession {
  readonly id: string;
  readonly userId: string;
  readonly expiresAt: number;
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
 * Closes streams whose sessions expire, as `expired`. A session is looked up when it may have expired,
 * because it may have been refreshed. While that is not possible, its stream stays open.
 */
export class SessionChecks {
  readonly #parts: SessionChecksParts;
  /** When the session of each open stream has to be looked up again, epoch ms. */
  readonly #expiries = new Map<EventStream, number>();

  constructor(parts: SessionChecksParts) {
    this.#parts = parts;
  }

  /** The open streams. */
  get streams(): readonly EventStream[] {
    return [...this.#expiries.keys()];
  }

  /** Adds an open stream whose session expires at `expiresAt` (epoch ms) unless it is refreshed. */
  add(stream: EventStream, expiresAt: number): void {
    this.#expiries.set(stream, expiresAt);
  }

  /** Removes a stream that has ended. */
  remove(stream: EventStream): void {
    this.#expiries.delete(stream);
  }

  /** Looks up the sessions that may have expired. Call it every `tickMs`. */
  tick(): void {
    const now = this.#parts.wallClock();
    for (const [stream, expiresAt] of this.#expiries) {
      if (expiresAt > now) continue;
      this.#expiries.set(stream, Number.POSITIVE_INFINITY); // No second lookup until this one has returned.
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
