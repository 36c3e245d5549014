import type { Socket } from 'node:net';

/** A connection, as far as it matters whether something moves on it. */
export interface IdleTrackedPeer {
  /** Below TLS. */
  readonly socket: Socket;
  /** Under way. */
  readonly exchanges: number;
  /** How many bytes had come and gone when it was last looked at, */
  lastTotalBytes: number;
  /** and how many looks in a row have found that many. */
  idleChecks: number;
}

/** Looks in the time after which a connection on which nothing moves is idle. */
export const idleChecksMax = 8;

/**
 * Those on which nothing has moved for `idleLooks` calls; again at each call, until something does.
 * To be called from a timer. It counts calls and no time, for after a pause of our own, which is one
 * late call, what peers have sent in the meantime has not been read yet.
 *
 * What moves one is any byte while an exchange is under way, and else only the end of the last one, or
 * of the handshake: by pings, or line ends over HTTP/1.1, anybody could keep a connection for ever.
 *
 * Node has a timer for each HTTP/2 session, but puts it off at every frame, and keeps a session for
 * as long again once it is over: `setTimeout(0)` does nothing to one that is destroyed.
 */
export function* findIdlePeers<Peer extends IdleTrackedPeer>(
  peers: Iterable<Peer>,
): Generator<Peer> {
  for (const peer of peers) {
    const totalBytes = peer.socket.bytesRead + peer.socket.bytesWritten;
    if (peer.exchanges > 0 && totalBytes !== peer.lastTotalBytes) {
      peer.lastTotalBytes = totalBytes;
      peer.idleChecks = 0;
    } else {
      peer.idleChecks += 1;
      if (peer.idleChecks >= idleChecksMax) yield peer;
    }
  }
}
