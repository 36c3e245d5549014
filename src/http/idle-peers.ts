import type { Socket } from 'node:net';

/** A connection, as far as it matters whether something moves on it. */
export interface Moving {
  /** Below TLS. */
  readonly socket: Socket;
  /** How many bytes had come and gone when it was last looked at, */
  movedBytes: number;
  /** and since when it is that many, by `performance.now()`. */
  movedAt: number;
}

/**
 * Those on which nothing has moved for `idleMs`; again at each call, until something does. To be
 * called from a timer, several times in `idleMs`.
 *
 * Node has a timer for each HTTP/2 session, but puts it off at every frame, and keeps a session for
 * as long again once it is over: `setTimeout(0)` does nothing to one that is destroyed.
 */
export function* idlePeers<Peer extends Moving>(
  peers: Iterable<Peer>,
  idleMs: number,
): Generator<Peer> {
  const now = performance.now();
  for (const peer of peers) {
    const movedBytes = peer.socket.bytesRead + peer.socket.bytesWritten;
    if (movedBytes !== peer.movedBytes) {
      peer.movedBytes = movedBytes;
      peer.movedAt = now;
    } else if (now - peer.movedAt >= idleMs) yield peer;
  }
}
