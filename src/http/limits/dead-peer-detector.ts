import type { Http2Session } from 'node:http2';
import type { Socket } from 'node:net';
import type { Clock } from '../../clock.js';
import { readUnackedBytes, toConnectionKey } from './unacked-bytes.js';

/** The state of a connection that dead peer detection needs. */
export interface MonitoredPeer {
  /** The TCP socket below TLS. */
  readonly socket: Socket;
  /** Undefined before the handshake, and over HTTP/1.1. */
  readonly h2Session: Http2Session | undefined;
  /** Number of open exchanges. */
  readonly exchangeCount: number;
  /** Number of bytes received up to the last ping; undefined before the first ping. */
  bytesReadAtPing: number | undefined;
  /**
   * Upper bound of the bytes that the peer had acknowledged at the last check. The exact number is
   * unknown, because data may be written while the kernel's TCP table is read. Undefined if the kernel
   * was not retransmitting.
   */
  ackedBytesMax: number | undefined;
}

/**
 * Destroys connections with open exchanges whose peer stopped responding. Over HTTP/2, detection takes at most
 * two check intervals. Over HTTP/1.1, it works only on Linux, and only after Herald has sent data to the peer;
 * on an event stream, the next heartbeat is such data.
 */
export class DeadPeerDetector {
  readonly #intervalMs: number;
  readonly #monotonicClock: Clock;
  #checkedAt: number;
  #isReadingTcpTable = false;

  constructor(intervalMs: number, monotonicClock: Clock = () => performance.now()) {
    this.#intervalMs = intervalMs;
    this.#monotonicClock = monotonicClock;
    this.#checkedAt = monotonicClock();
  }

  /** Called from a timer, every `intervalMs`. An HTTP/2 peer that sent nothing between two calls is dead. */
  check(peers: Iterable<MonitoredPeer>): void {
    const now = this.#monotonicClock();
    const isLate = now - this.#checkedAt > 1.25 * this.#intervalMs;
    this.#checkedAt = now;
    if (isLate) return; // This process was paused and has not read the data that arrived during the pause.
    const http1Peers: MonitoredPeer[] = [];
    for (const peer of peers) {
      if (peer.exchangeCount === 0) {
        peer.bytesReadAtPing = undefined; // The idle timeout closes such a connection.
        peer.ackedBytesMax = undefined;
      } else if (peer.h2Session === undefined) http1Peers.push(peer);
      else if (!peer.h2Session.destroyed) ping(peer, peer.h2Session);
    }
    if (http1Peers.length > 0) void this.#checkUnacked(http1Peers);
  }

  /**
   * Checks HTTP/1.1 peers, which cannot be pinged. A live peer acknowledges the data that it receives. A peer
   * is dead when the kernel was retransmitting to it at two checks and it acknowledged nothing in between.
   */
  async #checkUnacked(peers: readonly MonitoredPeer[]): Promise<void> {
    const port = peers[0]?.socket.localPort;
    if (this.#isReadingTcpTable || port === undefined) return;
    this.#isReadingTcpTable = true;
    const bytesWrittenBefore = peers.map(({ socket }) => socket.bytesWritten);
    const unackedByConnection = await readUnackedBytes(port);
    this.#isReadingTcpTable = false;
    for (const [index, peer] of peers.entries()) {
      const { socket, ackedBytesMax: previousAckedBytesMax } = peer;
      const unackedBytes = unackedByConnection.get(toConnectionKey(socket));
      peer.ackedBytesMax =
        unackedBytes === undefined ? undefined : socket.bytesWritten - unackedBytes;
      const ackedBytesMin = (bytesWrittenBefore[index] ?? 0) - (unackedBytes ?? 0);
      if (unackedBytes === undefined || previousAckedBytesMax === undefined) continue;
      if (ackedBytesMin <= previousAckedBytesMax) socket.destroy();
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
