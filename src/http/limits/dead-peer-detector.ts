import type { Http2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { readUnackedBytes, toConnectionKey } from './unacked-bytes.js';

/** A connection, as far as it matters whether somebody is at its other end. */
export interface MonitoredPeer {
  /** Below TLS. */
  readonly socket: Socket;
  /** Undefined before the handshake, and over HTTP/1.1. */
  readonly h2Session: Http2Session | undefined;
  readonly exchanges: number;
  /** How many bytes had come when it was last asked for a sign of life. */
  bytesReadAtPing: number | undefined;
  /** How many it can have acknowledged at most when the kernel was last found waiting for it. */
  ackedBytesMax: number | undefined;
}

/**
 * Ends connections with something open whose peer is gone without a word, within two rounds and,
 * over HTTP/1.1, the time until something is sent.
 */
export class DeadPeerDetector {
  readonly #intervalMs: number;
  #checkedAt = performance.now();
  #isReadingKernel = false;

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /** To be called from a timer, every `everyMs`: two calls apart is how long a peer may be silent. */
  check(peers: Iterable<MonitoredPeer>): void {
    const now = performance.now();
    const isLate = now - this.#checkedAt > 1.25 * this.#intervalMs;
    this.#checkedAt = now;
    if (isLate) return; // It was us who stood still: what peers have sent since is not read yet.
    const http1Peers: MonitoredPeer[] = [];
    for (const peer of peers) {
      if (peer.exchanges === 0) {
        peer.bytesReadAtPing = undefined; // Idle: `idleMs` sees to it, which a ping would prolong.
        peer.ackedBytesMax = undefined;
      } else if (peer.h2Session === undefined) http1Peers.push(peer);
      else if (!peer.h2Session.destroyed) ping(peer, peer.h2Session);
    }
    if (http1Peers.length > 0) void this.#checkUnacked(http1Peers);
  }

  /**
   * HTTP/1.1 has no ping. A peer that is there acknowledges what it is sent, heartbeats at least; one
   * that has acknowledged nothing since the last round, though the kernel had something to send again
   * then as now, is not there.
   */
  async #checkUnacked(peers: readonly MonitoredPeer[]): Promise<void> {
    const port = peers[0]?.socket.localPort;
    if (this.#isReadingKernel || port === undefined) return;
    this.#isReadingKernel = true;
    const bytesWrittenBefore = peers.map(({ socket }) => socket.bytesWritten);
    const unacked = await readUnackedBytes(port);
    this.#isReadingKernel = false;
    for (const [index, peer] of peers.entries()) {
      const { socket, ackedBytesMax = -1 } = peer;
      const bytes = unacked.get(toConnectionKey(socket));
      peer.ackedBytesMax = bytes === undefined ? undefined : socket.bytesWritten - bytes;
      const ackedBytesMin = (bytesWrittenBefore[index] ?? 0) - (bytes ?? 0);
      if (bytes !== undefined && ackedBytesMin <= ackedBytesMax) socket.destroy();
    }
  }
}

/** Any byte is a sign of life: on a slow line the answer to a ping may stand behind much else. */
function ping(peer: MonitoredPeer, h2Session: Http2Session): void {
  const { socket } = peer;
  if (peer.bytesReadAtPing === socket.bytesRead) socket.destroy();
  else h2Session.ping(() => {});
  peer.bytesReadAtPing = socket.bytesRead;
}
