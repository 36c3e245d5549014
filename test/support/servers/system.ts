import { rmSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { App } from '../../../src/app.js';
import { type AccountParts, withAccounts } from '../../../src/commands/accounts.js';
import { loadConfig } from '../../../src/config/config.js';
import type { Logger } from '../../../src/logging/logger.js';
import type { Answer } from '../clients/exchange.js';
import { H2Client } from '../clients/h2-client.js';
import { startOpenApiCheck } from '../openapi/observer.js';
import { recordedLog } from '../recording/record.js';
import { type Env, type Prepared, prepare, type Username } from './seed.js';

export interface SystemOptions {
  readonly env?: Env;
  readonly log?: Logger;
  readonly wallClock?: () => number;
  readonly monotonicClock?: () => number;
  readonly random?: () => number;
}

/** A Herald running in this process on its own port, with helpers to use it. */
export class System {
  readonly #prepared: Prepared;
  readonly #options: SystemOptions;
  readonly #closers: (() => void)[] = [];
  readonly #stopOpenApiCheck: () => void;
  #app: App;
  #backend: Promise<H2Client> | undefined;
  readonly #port: number;

  private constructor(prepared: Prepared, app: App, options: SystemOptions) {
    this.#prepared = prepared;
    this.#options = options;
    this.#app = app;
    this.#port = app.port;
    this.#stopOpenApiCheck = startOpenApiCheck(app.port);
  }

  /** Starts a system, closed after the test. */
  static async start(t: TestContext, options: SystemOptions = {}): Promise<System> {
    const prepared = await prepare(options.env);
    const system = new System(prepared, await open(prepared.env, options), options);
    t.after(() => system.#close());
    return system;
  }

  get app(): App {
    return this.#app;
  }

  get url(): string {
    const scheme = this.env['TLS'] === 'off' ? 'http' : 'https';
    return `${scheme}://127.0.0.1:${this.#port}`;
  }

  /** Settings of the system. */
  get env(): Env {
    return this.#prepared.env;
  }

  /** The folder of the certificate, `server.cert`, and of the data. */
  get folder(): string {
    return this.#prepared.folder;
  }

  get userIds(): Readonly<Record<Username, string>> {
    return this.#prepared.userIds;
  }

  get apiKey(): string {
    return this.#prepared.apiKey;
  }

  /** Adds a function that is called before the system is closed, to close clients. */
  onClose(close: () => void): void {
    this.#closers.push(close);
  }

  /** Opens a new HTTP/2 connection. */
  async connect(): Promise<H2Client> {
    const client = await H2Client.connect(this.url);
    this.onClose(() => client.destroy());
    return client;
  }

  /** Posts a body to `/events` with the API key. */
  async post(json: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    this.#backend ??= this.connect();
    const backend = await this.#backend;
    return backend.ask('POST', '/events', { bearer: this.apiKey, json, headers });
  }

  /** Publishes an event to a user or to all; returns its id. Throws unless it is created. */
  async publish(to: Username | 'all', data: unknown, more: object = {}): Promise<string> {
    const audience = to === 'all' ? to : { users: [this.userIds[to]] };
    const { status, body, text } = await this.post({ to: audience, data, ...more });
    if (status !== 201) throw new Error(`not published: ${text}`);
    return String(body['id']);
  }

  /** Runs account commands as the command line does, outside the running server and its caches. */
  runAdmin<Result>(work: (parts: AccountParts) => Promise<Result>): Promise<Result> {
    return withAccounts(loadConfig(this.#prepared.env), work);
  }

  /** Restarts on the same port and, unless `env` says otherwise, with the same data. */
  async restart(env: Env = {}): Promise<void> {
    await this.stop();
    await this.startOnSamePort(env);
  }

  async stop(): Promise<void> {
    this.#backend = undefined;
    await this.#app.close();
  }

  async startOnSamePort(env: Env = {}): Promise<void> {
    const same = { ...this.#prepared.env, PORT: String(this.#port) };
    this.#app = await open({ ...same, ...env }, this.#options);
  }

  async #close(): Promise<void> {
    for (const close of this.#closers.splice(0)) close();
    await this.#app.close();
    this.#stopOpenApiCheck();
    rmSync(this.#prepared.folder, { recursive: true, force: true });
  }
}

export function startSystem(t: TestContext, options: SystemOptions = {}): Promise<System> {
  return System.start(t, options);
}

function open(
  env: Env,
  { log = recordedLog, wallClock, monotonicClock, random }: SystemOptions,
): Promise<App> {
  const times = {
    ...(wallClock && { wallClock }),
    ...(monotonicClock && { monotonicClock }),
    ...(random && { random }),
  };
  return App.open({ config: loadConfig(env), log, ...times });
}
