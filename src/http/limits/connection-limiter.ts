import type { Http2SecureServer } from 'node:http2';
import type { Socket } from 'node:net';
import type { Clock } from '../../clock.js';
import type { Log } from '../../logging/log.js';
import { Counts } from '../../util/counts.js';
import { Bucket, type Rate } from '../../util/token-bucket.js';
import { ipKeyOf } from '../ip-key.js';

export interface AcceptLimitOptions {
  readonly rate: Rate;
  /**
   * Of one place (`ipKeyOf`): how many may begin, and be open at a time. Undefined when every
   * connection comes from a proxy of ours.
   */
  readonly perPlace: { readonly rate: Rate; readonly openMax: number } | undefined;
  readonly log: Log;
  /** Only its differences matter. */
  readonly clock?: Clock;
}

/** Places remembered; with more of them at a time, the rate in all is what holds. */
const placesMax = 10_000;

/**
 * How many connections may begin, and how many one place may have. A handshake costs about 2 ms of the one thread that serves all, so
 * without a limit a crowd that comes at once would stop everything else, and end in timeouts itself.
 *
 * What is too much is reset before its TLS begins, which costs a fiftieth of that; a client takes it
 * for a broken network, after which also a native EventSource comes back.
 */
export class AcceptLimit {
  readonly #all: Bucket;
  readonly #places: Bucket | undefined;
  readonly #openMax: number;
  /** Connections open, by place. */
  readonly #open = new Counts<string>();
  readonly #log: Log;
  /** Since the last report, by the setting that refused. */
  #refused: Record<string, number> = {};
  #lastFrom = '';
  #refusedInAll = 0;

  constructor({ rate, perPlace, log, clock = () => performance.now() }: AcceptLimitOptions) {
    this.#all = new Bucket({ ...rate, keysMax: 1, clock });
    if (perPlace !== undefined) {
      this.#places = new Bucket({ ...perPlace.rate, keysMax: placesMax, clock });
    }
    this.#openMax = perPlace?.openMax ?? Number.POSITIVE_INFINITY;
    this.#log = log;
  }

  /** Stands between the server and Node's own listener, which would begin TLS. */
  guard(server: Http2SecureServer): void {
    const begin = server.listeners('connection');
    server.removeAllListeners('connection');
    server.on('connection', (socket: Socket) => {
      const place = ipKeyOf(socket.remoteAddress ?? '');
      if (this.admits(place)) {
        this.#hold(place, socket);
        for (const one of begin) one.call(server, socket);
        return;
      }
      socket.on('error', () => {}); // It is over either way.
      socket.resetAndDestroy();
    });
    server.on('drop', (data) =>
      this.#refuse('MAX_CONNECTIONS', ipKeyOf(data?.remoteAddress ?? '')),
    );
  }

  /** Whether one more connection may begin; its rate is counted either way. */
  admits(place: string): boolean {
    // The place first: what is refused there must not take from the others.
    if (this.#places !== undefined && this.#places.take(place) > 0) {
      return this.#refuse('ACCEPT_IP_RATE', place);
    }
    if (this.#open.get(place) >= this.#openMax) {
      return this.#refuse('MAX_CONNECTIONS_PER_IP', place);
    }
    return this.#all.take('') === 0 || this.#refuse('ACCEPT_RATE', place);
  }

  /** Connections refused, from the beginning. */
  get refused(): number {
    return this.#refusedInAll;
  }

  /** One line about all that were refused since the last one, if any; for a timer. */
  report(): void {
    if (Object.keys(this.#refused).length === 0) return;
    const fields = { refused: this.#refused, lastFrom: this.#lastFrom };
    this.#log.warn(fields, 'connections refused');
    this.#refused = {};
  }

  #hold(place: string, socket: Socket): void {
    this.#open.add(place);
    socket.on('close', () => this.#open.remove(place));
  }

  #refuse(setting: string, place: string): false {
    this.#refusedInAll += 1;
    this.#refused[setting] = (this.#refused[setting] ?? 0) + 1;
    this.#lastFrom = place;
    return false;
  }
}
