import type { Clock } from '../../clock.js';
import type { Logger } from '../../logging/logger.js';
import type { Users } from '../users.js';
import type { Sessions } from './sessions.js';

/** The user and session of a stream that is open in this process. */
export interface Listener {
  readonly userId: string;
  readonly sessionId: string;
}

export interface RevocationFeedOptions {
  readonly sessions: Pick<Sessions, 'endedSince'>;
  readonly users: Pick<Users, 'missing'>;
  /** Returns the local listeners. Other sessions are ignored. */
  readonly listeners: () => readonly Listener[];
  /** Called with listeners' sessions that ended or whose user was deleted. Must not throw. */
  readonly onEnded: (sessionIds: readonly string[]) => void;
  readonly log: Logger;
  readonly wallClock?: Clock;
  /** From the end of one poll to the next. Default 1000. */
  readonly intervalMs?: number;
}

const intervalMsByDefault = 1000;

/**
 * Overlap of polls. Covers the clock difference between processes and the delay until a row becomes
 * visible.
 */
const overlapMs = 10_000;

/**
 * Detects sessions that another process has ended: the `user` command, or another Herald process on
 * the same database.
 *
 * Polls the database once a second; the cost depends on recently ended sessions, not on open ones.
 * Keeps polling while the database is unavailable, and then reads everything that it missed.
 */
export class RevocationFeed {
  readonly #options: RevocationFeedOptions;
  readonly #wallClock: Clock;
  /** Every session that ended before is known. */
  #since: number;
  #isOpen = true;
  #isFailing = false;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();

  private constructor(options: RevocationFeedOptions) {
    this.#options = options;
    this.#wallClock = options.wallClock ?? Date.now;
    this.#since = this.#wallClock() - overlapMs;
  }

  static start(options: RevocationFeedOptions): RevocationFeed {
    const feed = new RevocationFeed(options);
    feed.#wait();
    return feed;
  }

  /** Stops polling; settles after the poll under way. Idempotent; never rejects. */
  async close(): Promise<void> {
    this.#isOpen = false;
    clearTimeout(this.#timer);
    await this.#looking;
  }

  #wait(): void {
    const { intervalMs = intervalMsByDefault } = this.#options;
    this.#timer = setTimeout(() => {
      this.#looking = this.#look();
    }, intervalMs).unref();
  }

  async #look(): Promise<void> {
    const { log } = this.#options;
    try {
      await this.#tellEnded();
      if (this.#isFailing) log.info({}, 'revocations are heard of again');
      this.#isFailing = false;
    } catch (cause) {
      // Once per outage, not once a second.
      if (!this.#isFailing) log.warn({ cause }, 'revocations cannot be heard of, will try again');
      this.#isFailing = true;
    }
    if (this.#isOpen) this.#wait();
  }

  async #tellEnded(): Promise<void> {
    const { listeners, onEnded, users } = this.#options;
    const startedAt = this.#wallClock();
    const listening = listeners();
    if (listening.length > 0) {
      const over = await this.#endedOf(new Set(listening.map((one) => one.sessionId)));
      // Deleting a user deletes its sessions, so no row says that they ended.
      const gone = new Set(await users.missing([...new Set(listening.map((one) => one.userId))]));
      for (const { userId, sessionId } of listening) if (gone.has(userId)) over.add(sessionId);
      if (over.size > 0) onEnded([...over]);
    }
    // A stream that opens later checks its session then.
    this.#since = startedAt - overlapMs;
  }

  /** Returns those of these sessions that ended since the last poll. */
  async #endedOf(sessionIds: ReadonlySet<string>): Promise<Set<string>> {
    const { sessions } = this.#options;
    const ended = new Set<string>();
    let page = await sessions.endedSince(this.#since);
    for (let last = page.at(-1); last !== undefined; last = page.at(-1)) {
      for (const { sessionId } of page) if (sessionIds.has(sessionId)) ended.add(sessionId);
      page = await sessions.endedSince(last.revokedAt, last.sessionId);
    }
    return ended;
  }
}
