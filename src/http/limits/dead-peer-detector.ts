import type { Http2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { readUnackedBytes, toConnectionKey } from './unacked-bytes.js';

/** The state of a connection that dead peer detection needs. */
export interface MonitoredPeer {
  /** The TCP socket below TLS. */
  readonly socket: Socket;
  /** Undefined before the handshake, and over HTTP/1.1. */
  readonly h2Session: Http2Session | undefined;
  readonly exchanges: number;
  /** Bytes received up to the last ping. */
  bytesReadAtPing: number | undefined;
  /**
   * At most this many bytes were acknowledged at the last check: data may be written while the kernel's
   * table is read, so the exact number is unknown. Undefined if the kernel was not retransmitting.
   */
  ackedBytesMax: number | undefined;
}

/**
 * Destroys connections with open exchanges whose peer stopped responding, within two check intervals.
 * A peer over HTTP/1.1 is noticed only after Herald has sent it something, at the latest a heartbeat.
 */
export class DeadPeerDetector {
  readonly #intervalMs: number;
  #checkedAt = performance.now();
  #isReadingKernel = false;

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /** Called from a timer, every `intervalMs`. A peer that is silent between two calls is dead. */
  check(peers: Iterable<MonitoredPeer>): void {
    const now = performance.now();
    const isLate = now - this.#checkedAt > 1.25 * this.#intervalMs;
    this.#checkedAt = now;
    if (isLate) return; // This process was paused: data received meanwhile has not been read yet.
    const http1Peers: MonitoredPeer[] = [];
    for (const peer of peers) {
      if (peer.exchanges === 0) {
        peer.bytesReadAtPing = undefined; // Such a connection is left to the idle timeout.
        peer.ackedBytesMax = undefined;
      } else if (peer.h2Session === undefined) http1Peers.push(peer);
      else if (!peer.h2Session.destroyed) ping(peer, peer.h2Session);
    }
    if (http1Peers.length > 0) void this.#checkUnacked(http1Peers);
  }

  /**
   * Checks HTTP/1.1 peers, which cannot be pinged. A live peer acknowledges the data it is sent, at
   * least heartbeats. A peer is dead when it has acknowledged nothing since the last check although the
   * kernel was retransmitting to it at both checks.
   */
  async #checkUnacked(peers: readonly MonitoredPeer[]): Promise<void> {
    const port = peers[0]?.socket.localPort;
    if (this.#isReadingKernel || port === undefined) return;
    this.#isReadingKernel = true;
    const bytesWrittenBefore = peers.map(({ socket }) => socket.bytesWritten);
    const unacked = await readUnackedBytes(port);
    this.#isReadingKernel = false;
    for (const [index, peer] of peers.entries()) {
      const { socket, ackedBytesMax: previousMax } = peer;
      const bytes = unacked.get(toConnectionKey(socket));
      peer.ackedBytesMax = bytes === undefined ? undefined : socket.bytesWritten - bytes;
      const ackedBytesMin = (bytesWrittenBefore[index] ?? 0) - (bytes ?? 0);
      if (bytes === undefined || previousMax === undefined) continue;
      if (ackedBytesMin <= previousMax) socket.destroy();
    }
  }
}

/**
 * Pings a peer, or destroys it when it sent nothing since the last ping. Any byte counts, because on
 * a slow link the PING ACK can queue behind other data.
 */
function ping(peer: MonitoredPeer, h2Session: Http2Session): void {
  const { socket } = peer;
  if (peer.bytesReadAtPing === socket.bytesRead) socket.destroy();
  else h2Session.ping(() => {});
  peer.bytesReadAtPing = socket.bytesRead;
}
