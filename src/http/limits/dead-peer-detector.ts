import type { Http2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { keyOf, unacknowledged } from './unacked-bytes.js';

/** A connection, as far as it matters whether somebody is at its other end. */
export interface Watched {
  /** Below TLS. */
  readonly socket: Socket;
  /** Undefined before the handshake, and over HTTP/1.1. */
  readonly h2Session: Http2Session | undefined;
  readonly exchanges: number;
  /** How many bytes had come when it was last asked for a sign of life. */
  heardBytes: number | undefined;
  /** How many it can have acknowledged at most when the kernel was last found waiting for it. */
  acknowledgedMax: number | undefined;
}

/**
 * Ends connections with something open whose peer is gone without a word, within two rounds and,
 * over HTTP/1.1, the time until something is sent.
 */
export class LostPeers {
  readonly #everyMs: number;
  #lookedAt = performance.now();
  #isLooking = false;

  constructor(everyMs: number) {
    this.#everyMs = everyMs;
  }

  /** To be called from a timer, every `everyMs`: two calls apart is how long a peer may be silent. */
  look(peers: Iterable<Watched>): void {
    const now = performance.now();
    const isLate = now - this.#lookedAt > 1.25 * this.#everyMs;
    this.#lookedAt = now;
    if (isLate) return; // It was us who stood still: what peers have sent since is not read yet.
    const unasked: Watched[] = [];
    for (const peer of peers) {
      if (peer.exchanges === 0) {
        peer.heardBytes = undefined; // Idle: `idleMs` sees to it, which a ping would prolong.
        peer.acknowledgedMax = undefined;
      } else if (peer.h2Session === undefined) unasked.push(peer);
      else if (!peer.h2Session.destroyed) ping(peer, peer.h2Session);
    }
    if (unasked.length > 0) void this.#lookIntoKernel(unasked);
  }

  /**
   * HTTP/1.1 has no ping. A peer that is there acknowledges what it is sent, heartbeats at least; one
   * that has acknowledged nothing since the last round, though the kernel had something to send again
   * then as now, is not there.
   */
  async #lookIntoKernel(peers: readonly Watched[]): Promise<void> {
    const port = peers[0]?.socket.localPort;
    if (this.#isLooking || port === undefined) return;
    this.#isLooking = true;
    const before = peers.map(({ socket }) => socket.bytesWritten);
    const waiting = await unacknowledged(port);
    this.#isLooking = false;
    for (const [index, peer] of peers.entries()) {
      const { socket, acknowledgedMax = -1 } = peer;
      const bytes = waiting.get(keyOf(socket));
      peer.acknowledgedMax = bytes === undefined ? undefined : socket.bytesWritten - bytes;
      const acknowledgedMin = (before[index] ?? 0) - (bytes ?? 0);
      if (bytes !== undefined && acknowledgedMin <= acknowledgedMax) socket.destroy();
    }
  }
}

/** Any byte is a sign of life: on a slow line the answer to a ping may stand behind much else. */
function ping(peer: Watched, h2Session: Http2Session): void {
  const { socket } = peer;
  if (peer.heardBytes === socket.bytesRead) socket.destroy();
  else h2Session.ping(() => {});
  peer.heardBytes = socket.bytesRead;
}
