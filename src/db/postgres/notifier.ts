import { randomBytes } from 'node:crypto';
import { type Database, type Listening, sql, type WakeUps } from '../database.js';
import { withDeadline } from '../deadline.js';
import { unavailable } from '../failures.js';
import type { ServerOptions } from '../options.js';
import { connectPostgres, type PostgresClient } from './client.js';

/** PostgreSQL keeps channels of different databases apart. */
const channel = 'herald';

const checkMs = 15_000;

/**
 * `NOTIFY` and `LISTEN`. A notification is who sent it and nothing else, so that a process is not
 * woken by itself; what is new is in the tables. One more connection than the pool has.
 */
export class PostgresWakeUps implements WakeUps {
  readonly #options: ServerOptions;
  readonly #id = randomBytes(8).toString('hex');

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  async announce(tx: Database): Promise<void> {
    await tx.query(sql`select pg_notify(${channel}, ${this.#id})`);
  }

  listen(wake: () => void): Listening {
    return new Listener(this.#options, { wake, ownId: this.#id });
  }
}

interface ListenerParts {
  readonly wake: () => void;
  readonly ownId: string;
}

/** A connection that listens, and is made anew for as long as it takes. */
class Listener implements Listening {
  readonly #options: ServerOptions;
  readonly #parts: ListenerParts;
  #client: PostgresClient | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isListening = false;
  #isOpen = true;

  constructor(options: ServerOptions, parts: ListenerParts) {
    this.#options = options;
    this.#parts = parts;
    void this.#connect();
  }

  get isListening(): boolean {
    return this.#isListening;
  }

  async close(): Promise<void> {
    this.#isOpen = false;
    this.#isListening = false;
    clearTimeout(this.#timer);
    await this.#client?.end({ timeout: 0 });
  }

  async #connect(): Promise<void> {
    const client: PostgresClient = connectPostgres(this.#options, {
      max: 1,
      onClose: () => this.#lose(client),
      onNotify: (_channel, senderId) => {
        if (senderId !== this.#parts.ownId) this.#parts.wake();
      },
    });
    this.#client = client;
    await this.#ask(client, `listen ${channel}`);
    if (client !== this.#client || !this.#isOpen) return;
    this.#isListening = true;
    this.#parts.wake(); // For what came while nobody listened.
    this.#check(client);
  }

  /** A connection that only listens would not notice that nobody is there any more. */
  #check(client: PostgresClient): void {
    this.#timer = setTimeout(async () => {
      await this.#ask(client, 'select 1');
      if (client === this.#client && this.#isOpen) this.#check(client);
    }, checkMs).unref();
  }

  /** Never rejects: without an answer the connection is lost. */
  async #ask(client: PostgresClient, text: string): Promise<void> {
    const late = () => unavailable('the database does not answer in time');
    try {
      await withDeadline(client.unsafe(text), this.#options.connectMs, late);
    } catch {
      this.#lose(client);
    }
  }

  #lose(client: PostgresClient): void {
    if (client !== this.#client || !this.#isOpen) return;
    this.#client = undefined;
    this.#isListening = false;
    client.end({ timeout: 0 }).catch(() => undefined); // Given up either way.
    clearTimeout(this.#timer);
    const delayMs = 250 + 250 * Math.random(); // So that processes do not come back together.
    this.#timer = setTimeout(() => void this.#connect(), delayMs).unref();
  }
}
