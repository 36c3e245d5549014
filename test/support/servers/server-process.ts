import { rmSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { H2Client } from '../clients/h2-client.js';
import { type LogLine, launch, type ServerHandle } from './launch.js';
import { type Env, type Prepared, prepare } from './seed.js';

/** Herald as a child process that can be stopped, killed and restarted on the same port. */
export class ServerProcess {
  readonly prepared: Prepared;
  readonly lines: LogLine[] = [];
  readonly #nodeOptions: readonly string[];
  #launched: ServerHandle | undefined;

  private constructor(prepared: Prepared, nodeOptions: readonly string[]) {
    this.prepared = prepared;
    this.#nodeOptions = nodeOptions;
  }

  /** Starts a server and settles when it listens. The server is killed after the test. */
  static async start(
    t: TestContext,
    { env = {}, nodeOptions = [] }: { env?: Env; nodeOptions?: readonly string[] } = {},
  ): Promise<ServerProcess> {
    const server = new ServerProcess(await prepare(env), nodeOptions);
    t.after(async () => {
      await server.end('SIGKILL');
      rmSync(server.prepared.folder, { recursive: true, force: true });
    });
    await server.startOnSamePort();
    return server;
  }

  get url(): string {
    return this.#launched?.url ?? 'https://127.0.0.1:0';
  }

  get apiKey(): string {
    return this.prepared.apiKey;
  }

  get pid(): number {
    return this.#launched?.pid ?? 0;
  }

  connect(): Promise<H2Client> {
    return H2Client.connect(this.url);
  }

  async startOnSamePort(): Promise<void> {
    const { folder, env } = this.prepared;
    this.#launched = await launch({
      cwd: folder,
      env: { ...env, ...(this.#launched && { PORT: String(this.#launched.port) }) },
      nodeOptions: this.#nodeOptions,
      onLine: (line) => this.lines.push(line),
    });
  }

  signal(signal: NodeJS.Signals): void {
    this.#launched?.signal(signal);
  }

  /** Sends a signal and settles with the exit code; null when the process was killed. */
  end(signal: NodeJS.Signals): Promise<number | null> {
    return this.#launched?.end(signal) ?? Promise.resolve(null);
  }
}
