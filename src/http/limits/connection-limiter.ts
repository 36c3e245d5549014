import type { Server, Socket } from 'node:net';
import type { Clock } from '../../clock.js';
import type { Logger } from '../../logging/logger.js';
import { Counts } from '../../util/counts.js';
import { type Rate, TokenBucket } from '../../util/token-bucket.js';
import { toIpKey } from '../ip-key.js';

export interface ConnectionLimiterOptions {
  readonly rate: Rate;
  /**
   * Limits per IP key (`toIpKey`): new connections, and open connections. Undefined behind a trusted
   * proxy, where every connection has the address of the proxy.
   */
  readonly perIp: { readonly rate: Rate; readonly openMax: number } | undefined;
  readonly log: Logger;
  /** Returns milliseconds, of which only differences matter. Default: `performance.now`. */
  readonly monotonicClock?: Clock;
}

/** Maximum number of IP keys whose rate is tracked. Over it, only the total rate is limited. */
const ipKeysMax = 10_000;

/**
 * Limits the rate of new connections and the number of open connections per IP key. A TLS handshake
 * costs about 2 ms of the main thread, so without a limit a burst of connections would block all other
 * work, and its own handshakes would time out.
 *
 * A connection over a limit is reset before TLS starts, which costs a fiftieth of a handshake. The client
 * sees a network error, after which even a native EventSource reconnects.
 */
export class ConnectionLimiter {
  readonly #totalRate: TokenBucket;
  readonly #ipRate: TokenBucket | undefined;
  readonly #openMax: number;
  /** Open connections by IP key. */
  readonly #openByIp = new Counts<string>();
  readonly #log: Logger;
  /** Number of connections refused since the last report, by the setting that was exceeded. */
  #refusedBySetting: Record<string, number> = {};
  #lastRefusedIp = '';
  #refusedTotal = 0;

  constructor({
    rate,
    perIp,
    log,
    monotonicClock = () => performance.now(),
  }: ConnectionLimiterOptions) {
    this.#totalRate = new TokenBucket({ ...rate, keysMax: 1, clock: monotonicClock });
    if (perIp !== undefined) {
      this.#ipRate = new TokenBucket({ ...perIp.rate, keysMax: ipKeysMax, clock: monotonicClock });
    }
    this.#openMax = perIp?.openMax ?? Number.POSITIVE_INFINITY;
    this.#log = log;
  }

  /**
   * Passes only accepted connections to the existing `connection` listeners, one of which starts TLS or,
   * without TLS, reads the first bytes.
   */
  attachTo(server: Server): void {
    const listeners = server.listeners('connection');
    server.removeAllListeners('connection');
    server.on('connection', (socket: Socket) => {
      const ipKey = toIpKey(socket.remoteAddress ?? '');
      if (this.tryAccept(ipKey)) {
        this.#trackOpen(ipKey, socket);
        for (const listener of listeners) listener.call(server, socket);
        return;
      }
      socket.on('error', () => {}); // Without a listener an error would end the process.
      socket.resetAndDestroy();
    });
    server.on('drop', (data) =>
      this.#refuse('MAX_CONNECTIONS', toIpKey(data?.remoteAddress ?? '')),
    );
  }

  /**
   * Returns whether a new connection is accepted. A connection that another limit refuses still counts
   * towards the rate of its IP key.
   */
  tryAccept(ipKey: string): boolean {
    // Checked first, because connections over the rate of their IP key must not use up the total rate.
    if (this.#ipRate !== undefined && this.#ipRate.take(ipKey) > 0) {
      return this.#refuse('ACCEPT_IP_RATE', ipKey);
    }
    if (this.#openByIp.get(ipKey) >= this.#openMax) {
      return this.#refuse('MAX_CONNECTIONS_PER_IP', ipKey);
    }
    return this.#totalRate.take('') === 0 || this.#refuse('ACCEPT_RATE', ipKey);
  }

  /** Number of connections refused since the start. */
  get refused(): number {
    return this.#refusedTotal;
  }

  /** Number of IP keys with an open connection. Each of them uses memory. */
  get openIpKeys(): number {
    return this.#openByIp.size;
  }

  /** Logs one line about all connections refused since the last call, if there are any. For a timer. */
  report(): void {
    if (Object.keys(this.#refusedBySetting).length === 0) return;
    const fields = { refused: this.#refusedBySetting, lastFrom: this.#lastRefusedIp };
    this.#log.warn(fields, 'connections refused');
    this.#refusedBySetting = {};
  }

  #trackOpen(ipKey: string, socket: Socket): void {
    this.#openByIp.add(ipKey);
    socket.on('close', () => this.#openByIp.remove(ipKey));
  }

  #refuse(setting: string, ipKey: string): false {
    this.#refusedTotal += 1;
    this.#refusedBySetting[setting] = (this.#refusedBySetting[setting] ?? 0) + 1;
    this.#lastRefusedIp = ipKey;
    return false;
  }
}
