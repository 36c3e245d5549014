import type { Clock } from '../../clock.js';
import type { Logger } from '../../logging/logger.js';
import type { Users } from '../users.js';
import type { Sessions } from './sessions.js';

/** Somebody with something open in this process. */
export interface Listener {
  readonly userId: string;
  readonly sessionId: string;
}

export interface RevocationFeedOptions {
  readonly sessions: Pick<Sessions, 'endedSince'>;
  readonly users: Pick<Users, 'missing'>;
  /** Whoever has to be told. Sessions of nobody here are not looked at. */
  readonly listeners: () => readonly Listener[];
  /** Told of sessions of listeners that ended, or whose user was deleted. Must not throw. */
  readonly onEnded: (sessionIds: readonly string[]) => void;
  readonly log: Logger;
  readonly wallClock?: Clock;
  /** From the end of one look to the next. Default 1000. */
  readonly intervalMs?: number;
}

const intervalMsByDefault = 1000;

/**
 * How far looks overlap: the clocks of processes may be so far apart, and a row may become visible
 * so long after its time.
 */
const overlapMs = 10_000;

/**
 * Hears of sessions that another process has ended: the `user` command beside this server, or
 * another Herald on the same database.
 *
 * Asks the database once a second, and costs what was ended in the last seconds, not what is open.
 * While the database is away it asks on, and then hears of everything that it missed.
 */
export class RevocationFeed {
  readonly #options: RevocationFeedOptions;
  readonly #wallClock: Clock;
  /** All that ended before is known. */
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

  /** Asks nothing more once it settles. Twice is fine; never rejects. */
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
      // Once for each time the database goes away, not once a second.
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
      // A user that is deleted takes its sessions along: their rows do not say that they ended.
      const gone = new Set(await users.missing([...new Set(listening.map((one) => one.userId))]));
      for (const { userId, sessionId } of listening) if (gone.has(userId)) over.add(sessionId);
      if (over.size > 0) onEnded([...over]);
    }
    // Whoever opens a stream later looks at its session then.
    this.#since = startedAt - overlapMs;
  }

  /** Of these sessions those that ended since the last look. */
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
