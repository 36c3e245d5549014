import postgres from 'postgres';
import type { ServerOptions } from '../options.js';
import { buildTlsOptions } from '../tls.js';

export type PostgresClient = postgres.Sql<{ bigint: number; numeric: number }>;
export type PostgresParameter = postgres.SerializableParameter;
export type PendingQuery = postgres.PendingQuery<object[]>;

interface ConnectOptions {
  readonly database?: string;
  readonly max?: number;
  /** Whether the server ends what takes too long. Behind a pooler (`prepare: false`) it does not. */
  readonly hasTimeouts?: boolean;
  /** A connection was lost, or could not be made. */
  readonly onClose?: () => void;
  readonly onNotify?: (channel: string, payload: string) => void;
}

interface ClientGeneration {
  readonly client: PostgresClient;
  readonly openedAt: number;
  running: number;
}

const lifeMs = 1_800_000;

/**
 * The client in use, which has the pool. At the first connection it loses it is replaced: on the
 * others what runs comes to its end, and then they are closed.
 *
 * For the package cannot be let connect again by itself. What was to be sent when the connection
 * closed stays in front of what a new one has to say first, which then never connects; or it is sent
 * to nobody, from a timer, and that ends the process (porsager/postgres#1154, #1208).
 *
 * Clients are replaced every half hour, too, so that a server behind a changed name is found.
 */
export class PostgresClients {
  readonly #options: ServerOptions;
  #current: ClientGeneration;
  #isClosed = false;
  readonly #retired = new Set<ClientGeneration>();

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#current = this.#open();
  }

  async use<Result>(work: (client: PostgresClient) => Promise<Result>): Promise<Result> {
    if (performance.now() - this.#current.openedAt > lifeMs) this.#replace(this.#current);
    const generation = this.#current;
    generation.running += 1;
    try {
      return await work(generation.client);
    } finally {
      generation.running -= 1;
      if (generation !== this.#current && generation.running === 0) this.#end(generation);
    }
  }

  /** Takes a new one at once; what runs on the old one fails. */
  replaceNow(): void {
    const previous = this.#current;
    this.#replace(previous);
    this.#end(previous);
  }

  /** What runs has so long to end. */
  async close(seconds: number): Promise<void> {
    this.#isClosed = true;
    const all = [...this.#retired, this.#current];
    await Promise.all(all.map(({ client }) => client.end({ timeout: seconds })));
  }

  #open(): ClientGeneration {
    const generation: ClientGeneration = {
      client: connectPostgres(this.#options, { onClose: () => this.#replace(generation) }),
      openedAt: performance.now(),
      running: 0,
    };
    return generation;
  }

  #replace(generation: ClientGeneration): void {
    if (generation !== this.#current || this.#isClosed) return;
    this.#current = this.#open();
    this.#retired.add(generation);
    const { connectMs, statementMs } = this.#options; // Nothing takes longer than both.
    if (generation.running === 0) this.#end(generation);
    else setTimeout(() => this.#end(generation), 2 * (connectMs + statementMs)).unref();
  }

  #end(generation: ClientGeneration): void {
    if (!this.#retired.delete(generation)) return; // It has ended.
    generation.client.end({ timeout: 0 }).catch(() => undefined); // Given up either way.
  }
}

export function isServerError(error: unknown): boolean {
  return error instanceof postgres.PostgresError;
}

/** A pool of connections that are opened when they are needed. */
export function connectPostgres(
  options: ServerOptions,
  {
    database = options.database,
    max = options.connectionsMax,
    hasTimeouts = true,
    onClose,
    onNotify,
  }: ConnectOptions = {},
): PostgresClient {
  const { host, port, username, password, connectMs, statementMs, prepare } = options;
  const limits = {
    statement_timeout: statementMs,
    lock_timeout: statementMs,
    idle_in_transaction_session_timeout: connectMs + statementMs,
  };
  return postgres({
    host,
    port,
    database,
    username,
    password,
    max,
    prepare,
    ssl: buildTlsOptions(options),
    connect_timeout: connectMs / 1000,
    // Connections end only when they are lost or given up: see `PostgresClients`.
    idle_timeout: 0,
    max_lifetime: null,
    ...(onClose && { onclose: onClose }),
    // Not in the package's types; its own `listen` is made of it, and connects again in silence.
    ...(onNotify && { onnotify: onNotify }),
    // Nobody asks for arrays, and nobody listens to whether this query of the package's own fails:
    // a connection lost in its first moments would end the process.
    fetch_types: false,
    // The package's own grows to 20 s, long after the server is back.
    backoff: () => 0.25 + Math.random() * 0.25,
    // A pooler that shares connections refuses whoever wants to set something on one of them.
    connection: { application_name: 'herald', ...(hasTimeouts && prepare ? limits : {}) },
    types: {
      bigint: {
        to: 20,
        from: [20],
        parse: safeNumber,
        serialize: (value: number) => String(value),
      },
      numeric: {
        to: 1700,
        from: [1700],
        parse: safeNumber,
        serialize: (value: number) => String(value),
      },
    },
    onnotice() {},
  });
}

function safeNumber(text: string): number {
  const number = Number(text);
  if (Number.isInteger(number) && !Number.isSafeInteger(number)) {
    throw new RangeError('Cannot read number: it is past 2^53');
  }
  return number;
}
