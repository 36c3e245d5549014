import type { Http2SecureServer } from 'node:http2';
import type { Socket } from 'node:net';
import type { Clock } from '../../clock.js';
import type { Logger } from '../../logging/logger.js';
import { Counts } from '../../util/counts.js';
import { Bucket, type Rate } from '../../util/token-bucket.js';
import { toIpKey } from '../ip-key.js';

export interface ConnectionLimiterOptions {
  readonly rate: Rate;
  /**
   * Of one place (`ipKeyOf`): how many may begin, and be open at a time. Undefined when every
   * connection comes from a proxy of ours.
   */
  readonly perIp: { readonly rate: Rate; readonly openMax: number } | undefined;
  readonly log: Logger;
  /** Only its differences matter. */
  readonly monotonicClock?: Clock;
}

/** Places remembered; with more of them at a time, the rate in all is what holds. */
const ipKeysMax = 10_000;

/**
 * How many connections may begin, and how many one place may have. A handshake costs about 2 ms of the one thread that serves all, so
 * without a limit a crowd that comes at once would stop everything else, and end in timeouts itself.
 *
 * What is too much is reset before its TLS begins, which costs a fiftieth of that; a client takes it
 * for a broken network, after which also a native EventSource comes back.
 */
export class ConnectionLimiter {
  readonly #totalRate: Bucket;
  readonly #ipRate: Bucket | undefined;
  readonly #openMax: number;
  /** Connections open, by place. */
  readonly #openByIp = new Counts<string>();
  readonly #log: Logger;
  /** Since the last report, by the setting that refused. */
  #refusedBySetting: Record<string, number> = {};
  #lastRefusedIp = '';
  #refusedTotal = 0;

  constructor({
    rate,
    perIp,
    log,
    monotonicClock = () => performance.now(),
  }: ConnectionLimiterOptions) {
    this.#totalRate = new Bucket({ ...rate, keysMax: 1, clock: monotonicClock });
    if (perIp !== undefined) {
      this.#ipRate = new Bucket({ ...perIp.rate, keysMax: ipKeysMax, clock: monotonicClock });
    }
    this.#openMax = perIp?.openMax ?? Number.POSITIVE_INFINITY;
    this.#log = log;
  }

  /** Stands between the server and Node's own listener, which would begin TLS. */
  attachTo(server: Http2SecureServer): void {
    const nodeListeners = server.listeners('connection');
    server.removeAllListeners('connection');
    server.on('connection', (socket: Socket) => {
      const ipKey = toIpKey(socket.remoteAddress ?? '');
      if (this.tryAccept(ipKey)) {
        this.#trackOpen(ipKey, socket);
        for (const listener of nodeListeners) listener.call(server, socket);
        return;
      }
      socket.on('error', () => {}); // It is over either way.
      socket.resetAndDestroy();
    });
    server.on('drop', (data) =>
      this.#refuse('MAX_CONNECTIONS', toIpKey(data?.remoteAddress ?? '')),
    );
  }

  /** Whether one more connection may begin; its rate is counted either way. */
  tryAccept(ipKey: string): boolean {
    // The place first: what is refused there must not take from the others.
    if (this.#ipRate !== undefined && this.#ipRate.take(ipKey) > 0) {
      return this.#refuse('ACCEPT_IP_RATE', ipKey);
    }
    if (this.#openByIp.get(ipKey) >= this.#openMax) {
      return this.#refuse('MAX_CONNECTIONS_PER_IP', ipKey);
    }
    return this.#totalRate.take('') === 0 || this.#refuse('ACCEPT_RATE', ipKey);
  }

  /** Connections refused, from the beginning. */
  get refused(): number {
    return this.#refusedTotal;
  }

  /** One line about all that were refused since the last one, if any; for a timer. */
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
