import postgres from 'postgres';
import type { DatabaseServerOptions } from '../options.js';
import { buildTlsOptions } from '../tls.js';
import { buildStartupParameters } from './session.js';

export type PostgresClient = postgres.Sql<{ bigint: number; numeric: number }>;
export type PostgresParameter = postgres.SerializableParameter;
export type PendingQuery = postgres.PendingQuery<object[]>;

interface ConnectOptions {
  readonly database?: string;
  readonly max?: number;
  /**
   * Whether to set server-side timeouts. Ignored behind a pooler (`prepare: false`). Default true.
   */
  readonly hasTimeouts?: boolean;
  /** Called when a connection is lost or cannot be opened. */
  readonly onClose?: () => void;
  readonly onNotify?: (channel: string, payload: string) => void;
}

interface ClientGeneration {
  readonly client: PostgresClient;
  readonly openedAt: number;
  running: number;
}

/** After this time a connection is replaced, to follow DNS changes of the host name. */
export const clientLifeMs = 1_800_000;
const readOnlyRetryMs = 1000;

/**
 * Manages the current client, which owns the pool. A client is replaced as soon as it loses any of
 * its connections; it is closed once the statements on the other connections have finished.
 *
 * The package must not reconnect by itself, because it would send data that was left unsent when the
 * connection closed: either before the startup message of the new connection, which then never connects, or
 * from a timer to the closed socket, which ends the process (porsager/postgres#1154, #1208).
 *
 * A client is also replaced after `clientLifeMs`.
 */
export class PostgresClients {
  readonly #options: DatabaseServerOptions;
  #current: ClientGeneration;
  #isClosed = false;
  readonly #retired = new Set<ClientGeneration>();

  constructor(options: DatabaseServerOptions) {
    this.#options = options;
    this.#current = this.#open();
  }

  async use<Result>(work: (client: PostgresClient) => Promise<Result>): Promise<Result> {
    if (performance.now() - this.#current.openedAt > clientLifeMs) this.#replace(this.#current);
    const generation = this.#current;
    generation.running += 1;
    try {
      return await work(generation.client);
    } finally {
      generation.running -= 1;
      if (generation !== this.#current && generation.running === 0) this.#end(generation);
    }
  }

  /** Replaces the client immediately; statements that run on the replaced client fail. */
  replaceNow(): void {
    const previous = this.#current;
    this.#replace(previous);
    this.#end(previous);
  }

  /**
   * Replaces the client after a server has answered that it is read-only, as the old primary does after a
   * failover. Statements that run on the replaced client finish. Does nothing within a second of the last
   * replacement, because a server can be read-only on purpose.
   */
  replaceReadOnly(): void {
    const now = performance.now();
    if (now - this.#current.openedAt > readOnlyRetryMs) this.#replace(this.#current);
  }

  /** Closes all clients; running statements have `seconds` to finish. */
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
    const { connectMs, statementMs } = this.#options; // Together the deadline of a statement.
    if (generation.running === 0) this.#end(generation);
    else setTimeout(() => this.#end(generation), 2 * (connectMs + statementMs)).unref();
  }

  #end(generation: ClientGeneration): void {
    if (!this.#retired.delete(generation)) return; // Already ended.
    // The client is discarded, whether or not `end` succeeds.
    generation.client.end({ timeout: 0 }).catch(() => undefined);
  }
}

export function isServerError(error: unknown): boolean {
  return error instanceof postgres.PostgresError;
}

/** Creates a pool whose connections are opened on demand. */
export function connectPostgres(
  options: DatabaseServerOptions,
  {
    database = options.database,
    max = options.connectionsMax,
    hasTimeouts = true,
    onClose,
    onNotify,
  }: ConnectOptions = {},
): PostgresClient {
  const { host, port, username, password, connectMs, prepare } = options;
  return postgres({
    ...toAddress(host, port),
    database,
    username,
    password,
    max,
    prepare,
    ssl: buildTlsOptions(options),
    connect_timeout: connectMs / 1000,
    // Connections end only when they are lost or replaced: see `PostgresClients`.
    idle_timeout: 0,
    max_lifetime: null,
    ...(onClose && { onclose: onClose }),
    // Missing in the package's types. The package's own `listen` uses it, but reconnects silently.
    ...(onNotify && { onnotify: onNotify }),
    // Only arrays need the package's query for types. The package does not handle its rejection, so
    // losing a connection that is being opened would end the process.
    fetch_types: false,
    // The package's default grows to 20 s, which delays recovery once the server is back.
    backoff: () => 0.25 + Math.random() * 0.25,
    connection: buildStartupParameters(options, { hasTimeouts }),
    types: {
      bigint: {
        to: 20,
        from: [20],
        parse: parseSafeNumber,
        serialize: (value: number) => String(value),
      },
      numeric: {
        to: 1700,
        from: [1700],
        parse: parseSafeNumber,
        serialize: (value: number) => String(value),
      },
    },
    onnotice() {},
  });
}

/** Returns the options of an address. Uses lists, because the package reads a port after a colon in a text. */
function toAddress(host: string, port: number): object {
  if (host.startsWith('/')) return { path: `${host}/.s.PGSQL.${port}` };
  return { host: [host], port: [port] };
}

function parseSafeNumber(text: string): number {
  const number = Number(text);
  if (Number.isInteger(number) && !Number.isSafeInteger(number)) {
    throw new RangeError('Cannot read number: it is past 2^53');
  }
  return number;
}
