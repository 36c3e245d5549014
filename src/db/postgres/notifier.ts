import { randomBytes } from 'node:crypto';
import { type Database, type Notifier, type Subscription, sql } from '../database.js';
import { withDeadline } from '../deadline.js';
import { unavailable } from '../failures.js';
import type { DatabaseServerOptions } from '../options.js';
import { clientLifeMs, connectPostgres, type PostgresClient } from './client.js';

/** Channel of all notifications; PostgreSQL scopes channels to a database. */
const channel = 'herald';

interface Timing {
  /** Time between two probes of the connection. */
  readonly checkMs: number;
  /** Time after which a probe replaces the connection. */
  readonly lifeMs: number;
}

const defaultTiming: Timing = { checkMs: 15_000, lifeMs: clientLifeMs };

/**
 * A `Notifier` over `NOTIFY` and `LISTEN`. The payload is only the sender's id, so that a process
 * ignores its own notifications; the changes are in the tables. A subscription uses one connection
 * in addition to the pool.
 */
export class PostgresNotifier implements Notifier {
  readonly #options: DatabaseServerOptions;
  readonly #timing: Timing;
  readonly #id = randomBytes(8).toString('hex');

  constructor(options: DatabaseServerOptions, timing = defaultTiming) {
    this.#options = options;
    this.#timing = timing;
  }

  async notify(tx: Database): Promise<void> {
    await tx.query(sql`select pg_notify(${channel}, ${this.#id})`);
  }

  subscribe(onNotify: () => void): Subscription {
    return new PostgresSubscription(this.#options, { onNotify, ownId: this.#id, ...this.#timing });
  }
}

interface SubscriptionParts extends Timing {
  readonly onNotify: () => void;
  readonly ownId: string;
}

/** A listening connection that reconnects until it is closed. */
class PostgresSubscription implements Subscription {
  readonly #options: DatabaseServerOptions;
  readonly #parts: SubscriptionParts;
  #client: PostgresClient | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isActive = false;
  #isOpen = true;

  constructor(options: DatabaseServerOptions, parts: SubscriptionParts) {
    this.#options = options;
    this.#parts = parts;
    void this.#connect();
  }

  get isActive(): boolean {
    return this.#isActive;
  }

  async close(): Promise<void> {
    this.#isOpen = false;
    this.#isActive = false;
    clearTimeout(this.#timer);
    await this.#client?.end({ timeout: 0 });
  }

  async #connect(): Promise<void> {
    const client: PostgresClient = connectPostgres(this.#options, {
      max: 1,
      onClose: () => this.#reconnect(client),
      onNotify: (_channel, senderId) => {
        if (senderId !== this.#parts.ownId) this.#parts.onNotify();
      },
    });
    this.#client = client;
    const openedAt = performance.now();
    await this.#sendWithDeadline(client, `listen ${channel}`);
    if (client !== this.#client || !this.#isOpen) return;
    this.#isActive = true;
    this.#parts.onNotify(); // Notifications may have been missed before `listen`.
    this.#check(client, openedAt);
  }

  /**
   * Probes the connection. A connection that only listens does not detect that the database server is dead,
   * nor that the server has become read-only in a failover and another server now sends the notifications.
   * Replaces the connection at the end of its life.
   */
  #check(client: PostgresClient, openedAt: number): void {
    const { checkMs, lifeMs } = this.#parts;
    this.#timer = setTimeout(async () => {
      const rows = await this.#sendWithDeadline(client, 'show transaction_read_only');
      const isReadOnly = rows.some((row) => Object.values(row).includes('on'));
      if (isReadOnly || performance.now() - openedAt > lifeMs) this.#reconnect(client);
      if (client === this.#client && this.#isOpen) this.#check(client, openedAt);
    }, checkMs).unref();
  }

  /** Sends a statement. Reconnects and returns no rows if it fails or times out. Never rejects. */
  async #sendWithDeadline(client: PostgresClient, text: string): Promise<readonly object[]> {
    const timeoutError = () => unavailable('timeout');
    try {
      return await withDeadline(
        client.unsafe<object[]>(text),
        this.#options.connectMs,
        timeoutError,
      );
    } catch {
      this.#reconnect(client);
      return [];
    }
  }

  #reconnect(client: PostgresClient): void {
    if (client !== this.#client || !this.#isOpen) return;
    this.#client = undefined;
    this.#isActive = false;
    client.end({ timeout: 0 }).catch(() => undefined); // Discarded, whether or not `end` succeeds.
    clearTimeout(this.#timer);
    const delayMs = 250 + 250 * Math.random(); // Jitter, so that processes do not coincide.
    this.#timer = setTimeout(() => void this.#connect(), delayMs).unref();
  }
}
