import type { EventSubscriber } from '../event-log/event-log.js';
import type { Audience } from '../events/audience.js';
import { everybody, sessionAudience } from '../events/audience.js';
import type { Frame } from '../events/frame.js';
import { Counts } from '../util/counts.js';
import { Wheel } from '../util/timer-wheel.js';
import type { CloseReason, Connection, Reader } from './event-stream.js';

export interface StreamLimits {
  readonly streamsMax: number;
  readonly perUserMax: number;
  readonly perIpMax: number;
}

/** Between two calls of `Registry.tick`. */
export const tickMs = 1000;

const noStreams: ReadonlySet<Connection> = new Set();

interface Addressed {
  readonly audiences: readonly Audience[];
}

/** Why one more stream cannot be had now. */
export type Refusal = 'draining' | 'all' | 'user' | 'ip';

/**
 * Who is connected. Connections are indexed by the audiences they listen to, so an event costs what
 * its own audience costs. Also keeps the one timer wheel.
 */
export class Registry implements EventSubscriber {
  readonly #limits: StreamLimits;
  readonly #connections = new Map<Audience, Set<Connection>>();
  readonly #byToken = new Map<string, Connection>();
  readonly #perUser = new Counts<string>();
  readonly #perIp = new Counts<string>();
  readonly #wheel: Wheel<Connection>;
  readonly #uptime: () => number;
  #deliveries = 0;
  #draining = false;

  constructor({ limits, uptime }: { limits: StreamLimits; uptime: () => number }) {
    this.#limits = limits;
    this.#uptime = uptime;
    this.#wheel = new Wheel(uptime());
  }

  /** The number of open streams. */
  get size(): number {
    return this.streams.size;
  }

  /** Every open stream. To be read at once: it changes with each that opens or ends. */
  get streams(): ReadonlySet<Connection> {
    return this.#connections.get(everybody) ?? noStreams;
  }

  /** Users with an open stream in this process. */
  get users(): number {
    return this.#perUser.size;
  }

  /** Events handed to connections, ever. */
  get deliveries(): number {
    return this.#deliveries;
  }

  /** Whether nothing is left of any connection: for tests that count what was closed. */
  get isEmpty(): boolean {
    const held = [this.#connections, this.#byToken, this.#perUser, this.#perIp];
    return this.#wheel.size === 0 && held.every((part) => part.size === 0);
  }

  /** Why a stream for this reader cannot be opened now; a stream that it would replace is let off. */
  refusalFor(reader: Pick<Reader, 'userId' | 'ip' | 'tokenHash'>): Refusal | undefined {
    if (this.#draining) return 'draining';
    if (reader.tokenHash !== undefined && this.#byToken.has(reader.tokenHash)) return undefined;
    const { streamsMax, perUserMax, perIpMax } = this.#limits;
    if (this.size >= streamsMax) return 'all';
    if (this.#perUser.get(reader.userId) >= perUserMax) return 'user';
    if (this.#perIp.get(reader.ip) >= perIpMax) return 'ip';
    return undefined;
  }

  /** Takes in a connection; an older one on the same stream token ends as `replaced`. */
  add(connection: Connection): void {
    const { reader } = connection;
    if (reader.tokenHash !== undefined) {
      this.#byToken.get(reader.tokenHash)?.close('replaced', { retryMs: replacedRetryMs });
      this.#byToken.set(reader.tokenHash, connection);
    }
    for (const audience of reader.audiences) {
      const connections = this.#connections.get(audience);
      if (connections === undefined) this.#connections.set(audience, new Set([connection]));
      else connections.add(connection);
    }
    this.#perUser.add(reader.userId);
    this.#perIp.add(reader.ip);
    this.#wheel.set(connection, this.#uptime());
  }

  /** Forgets a connection that has ended. Safe for one that was never added. */
  remove(connection: Connection): void {
    const { reader } = connection;
    if (this.#connections.get(everybody)?.has(connection) !== true) return;
    if (reader.tokenHash !== undefined && this.#byToken.get(reader.tokenHash) === connection) {
      this.#byToken.delete(reader.tokenHash);
    }
    for (const audience of reader.audiences) {
      const connections = this.#connections.get(audience);
      connections?.delete(connection);
      if (connections?.size === 0) this.#connections.delete(audience);
    }
    this.#perUser.remove(reader.userId);
    this.#perIp.remove(reader.ip);
    this.#wheel.delete(connection);
  }

  /** Hands an event of the log to everyone it is for. A plain loop: never waits, never throws. */
  deliver({ audiences }: Addressed, frame: Frame): void {
    for (const audience of audiences) {
      const connections = this.#connections.get(audience);
      if (connections === undefined) continue;
      this.#deliveries += connections.size;
      for (const connection of connections) connection.push(frame);
    }
  }

  /** Hands an event that is not in the log to everyone it is for who is live and not behind. */
  deliverVolatile({ audiences }: Addressed, frame: Frame): void {
    for (const audience of audiences) {
      for (const connection of this.#connections.get(audience) ?? []) {
        connection.pushVolatile(frame);
      }
    }
  }

  /** Ends every stream: events are gone before they were delivered; on return clients learn that. */
  gap(): void {
    this.closeAll('behind');
  }

  /** Ends every stream of these sessions, at once. */
  closeSessions(sessionIds: readonly string[], reason: CloseReason): void {
    for (const sessionId of sessionIds) {
      for (const connection of this.#of(sessionAudience(sessionId))) connection.close(reason);
    }
  }

  /** Ends every stream, at once. */
  closeAll(reason: CloseReason): void {
    for (const connection of this.#of(everybody)) connection.close(reason);
  }

  /** The stream that is open on a token in this process. */
  onToken(tokenHash: string): Connection | undefined {
    return this.#byToken.get(tokenHash);
  }

  /**
   * To be called every `tickMs`: heartbeats and stalled clients. What has a time is done at
   * the tick that is nearest to it, so half a second early or late.
   */
  tick(): void {
    const now = this.#uptime() + tickMs / 2;
    for (const connection of this.#wheel.turn(now)) {
      const next = connection.tend(now);
      if (connection.isOpen) this.#wheel.set(connection, next);
    }
  }

  get isDraining(): boolean {
    return this.#draining;
  }

  /** From here on new streams are refused as `draining`. */
  startDraining(): void {
    this.#draining = true;
  }

  /** Ends up to `most` streams as `draining`. Answers how many are left. */
  drainSome(most: number, retryMs: () => number): number {
    for (const connection of this.#of(everybody).slice(0, most)) {
      connection.close('draining', { retryMs: retryMs() });
    }
    return this.size;
  }

  /** A copy: closing takes connections out of the set. */
  #of(audience: Audience): Connection[] {
    return [...(this.#connections.get(audience) ?? [])];
  }
}

/** Long, or a client that ignores `stream.close` would take the stream back at once, and so on. */
export const replacedRetryMs = 60_000;
