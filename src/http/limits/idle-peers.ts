import type { Socket } from 'node:net';

/** The state of a connection that idle detection needs. */
export interface IdleTrackedPeer {
  /** The TCP socket below TLS. */
  readonly socket: Socket;
  /** Number of open exchanges. */
  readonly exchangeCount: number;
  /** Bytes received and sent up to the last check. */
  lastTotalBytes: number;
  /** Consecutive checks without activity. */
  idleChecks: number;
  /** Number of open exchanges that exempt the connection from the idle timeout. */
  idleToleratingCount: number;
}

/** Number of intervals between checks in the idle timeout. */
export const checksPerTimeout = 8;

/**
 * Yields the connections without activity for `checksPerTimeout` complete intervals between calls. A connection
 * is yielded again at each call until it has activity. Called from a timer.
 *
 * This takes `checksPerTimeout` + 1 calls after the last activity, because the first call ends an incomplete
 * interval. The function counts calls instead of time, so that a pause of this process counts as one call: after
 * a pause, this process has not yet read the data that arrived meanwhile.
 *
 * While an exchange is open, any byte is activity, and an exchange that tolerates idle time is activity by
 * itself. Otherwise only the end of the last exchange, or of the handshake, is activity. If other bytes
 * counted, a client could keep a connection forever with HTTP/2 pings, or with empty lines over HTTP/1.1.
 *
 * Node's own session timeout does not fit: every frame restarts it, and it retains a closed session
 * until it fires, because `setTimeout(0)` has no effect on a destroyed session.
 */
export function* findIdlePeers<Peer extends IdleTrackedPeer>(
  peers: Iterable<Peer>,
): Generator<Peer> {
  for (const peer of peers) {
    const totalBytes = peer.socket.bytesRead + peer.socket.bytesWritten;
    const hasActivity = peer.idleToleratingCount > 0 || totalBytes !== peer.lastTotalBytes;
    if (peer.exchangeCount > 0 && hasActivity) {
      peer.lastTotalBytes = totalBytes;
      peer.idleChecks = 0;
    } else {
      peer.idleChecks += 1;
      if (peer.idleChecks > checksPerTimeout) yield peer;
    }
  }
}
