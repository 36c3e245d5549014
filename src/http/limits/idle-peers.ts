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
 * Yields the connections that had no activity for `checksPerTimeout` complete intervals between calls, again
 * at each call until there is activity. That takes one call more than there are intervals, because the
 * activity before the first call was at any time within an interval. Called from a timer. Counts calls
 * instead of time, because after a pause of this process data received meanwhile has not been read yet; such
 * a pause is only one late call.
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
