import type { Http2SecureServer, Http2Session } from 'node:http2';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { ConnectionLimiter } from './connection-limiter.js';
import { DeadPeerDetector, type MonitoredPeer } from './dead-peer-detector.js';
import { findIdlePeers, type IdleTrackedPeer, idleChecksMax } from './idle-peers.js';
import { toConnectionKey } from './unacked-bytes.js';

export interface ConnectionsOptions {
  /** Exchanges at once on one connection; HTTP/2 sees to it by itself. */
  readonly exchangesMax: number;
  /** How long a client that was asked to leave may take to do so. */
  readonly endMs: number;
  /** Nothing moves for so long: a goodbye when nothing is open, else the peer is gone. See `idlePeers`. */
  readonly idleMs: number;
  /** How often those with something open are looked after. */
  readonly pingMs: number;
  readonly connectionLimiter: ConnectionLimiter;
  /** A client could not be understood at this layer, and its connection ends. Must not throw. */
  readonly onUnreadable: (layer: Layer, cause: Error) => void;
}

/** Where a client can speak so that there is no request to answer. */
export type Layer = 'tls' | 'http1';

/** One TCP connection, from before its TLS handshake to its end. */
interface Peer extends MonitoredPeer, IdleTrackedPeer {
  /** Destroying it ends all that is built on it, whatever state that is in. */
  readonly socket: Socket;
  h2Session: Http2Session | undefined;
  /** Those waiting for their turn count, too. */
  exchanges: number;
  /** Set once it has been asked to leave. */
  destroyTimer: NodeJS.Timeout | undefined;
}

/** What tells that an exchange is over: an HTTP/2 stream, or an HTTP/1.1 response. */
interface CloseEmitter {
  on(event: 'close', listener: () => void): unknown;
}

/** The open connections of a server: who they are, whether they still live, and how they end. */
export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #peers = new Map<string, Peer>();
  /** The same, by what requests come in on. */
  readonly #peersByOwner = new WeakMap<object, Peer>();
  readonly #deadPeerDetector: DeadPeerDetector;
  readonly #checkTimer: NodeJS.Timeout;
  readonly #idleTimer: NodeJS.Timeout;
  /** Whose handshake Node is telling of; it makes the HTTP/2 session before it goes on. */
  #securedPeer: Peer | undefined;
  #emptyWaiters: (() => void)[] = [];
  #isClosing = false;

  constructor(server: Http2SecureServer, options: ConnectionsOptions) {
    this.#options = options;
    this.#deadPeerDetector = new DeadPeerDetector(options.pingMs);
    this.#checkTimer = setInterval(() => this.#checkPeers(), options.pingMs).unref();
    this.#idleTimer = setInterval(() => this.#closeIdle(), options.idleMs / idleChecksMax).unref();
    server.on('connection', (socket: Socket) => this.#add(socket));
    options.connectionLimiter.attachTo(server);
    // Before Node's own listener, which may bring a request along.
    server.prependListener('secureConnection', (socket: TLSSocket) => this.#addTlsSocket(socket));
    server.on('session', (session) => this.#addH2Session(session));
    server.on('clientError', (error: Error, socket: TLSSocket) =>
      this.#handleClientError(error, socket),
    );
  }

  /** TCP connections, with or without a finished TLS handshake. */
  get size(): number {
    return this.#peers.size;
  }

  /** Connections that were reset at once, from the beginning. */
  get refused(): number {
    return this.#options.connectionLimiter.refused;
  }

  /**
   * Notes an exchange until it closes. Answers the address it comes from; undefined when the
   * connection is, or has just been, cut off.
   */
  trackExchange(
    owner: TLSSocket | Http2Session | undefined,
    exchange: CloseEmitter,
  ): string | undefined {
    const peer = owner === undefined ? undefined : this.#peersByOwner.get(owner);
    if (peer === undefined || peer.socket.destroyed) return undefined;
    peer.exchanges += 1;
    if (peer.exchanges > this.#options.exchangesMax) {
      peer.socket.destroy();
      return undefined;
    }
    exchange.on('close', () => {
      peer.exchanges -= 1;
      peer.idleChecks = 0;
      if (peer.exchanges === 0 && this.#isClosing) this.#closePeer(peer);
    });
    return peer.socket.remoteAddress ?? '';
  }

  /** Asks every connection to end: at once, or when its exchanges are over. */
  closeGracefully(): void {
    this.#isClosing = true;
    for (const peer of this.#peers.values()) {
      peer.h2Session?.close(); // GOAWAY, also on Node 20 and 22.
      if (peer.exchanges === 0) this.#closePeer(peer);
    }
  }

  /** Ends every connection now. */
  destroyAll(): void {
    for (const { socket } of this.#peers.values()) socket.destroy();
  }

  allClosed(): Promise<void> {
    if (this.#peers.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#emptyWaiters.push(resolve));
  }

  /** Stops the timers. */
  close(): void {
    clearInterval(this.#checkTimer);
    clearInterval(this.#idleTimer);
    this.#options.connectionLimiter.report();
  }

  #add(socket: Socket): void {
    const key = toConnectionKey(socket);
    const peer: Peer = {
      socket,
      h2Session: undefined,
      exchanges: 0,
      bytesReadAtPing: undefined,
      ackedBytesMax: undefined,
      lastTotalBytes: 0,
      idleChecks: 0,
      destroyTimer: undefined,
    };
    this.#peers.set(key, peer);
    socket.on('error', ignore);
    socket.on('close', () => {
      clearTimeout(peer.destroyTimer);
      if (this.#peers.get(key) === peer) this.#peers.delete(key); // Not one that came after it.
      if (this.#peers.size > 0) return;
      for (const resolve of this.#emptyWaiters.splice(0)) resolve();
    });
  }

  #addTlsSocket(socket: TLSSocket): void {
    socket.on('error', ignore);
    const peer = this.#peers.get(toConnectionKey(socket));
    if (peer === undefined) {
      socket.destroy(); // Gone in the meantime.
      return;
    }
    peer.idleChecks = 0;
    if (socket.alpnProtocol === 'h2') this.#securedPeer = peer;
    else this.#peersByOwner.set(socket, peer);
  }

  #addH2Session(h2Session: Http2Session): void {
    h2Session.on('error', ignore);
    const peer = this.#securedPeer;
    this.#securedPeer = undefined;
    if (peer === undefined) {
      h2Session.destroy();
      return;
    }
    peer.h2Session = h2Session;
    this.#peersByOwner.set(h2Session, peer);
  }

  #checkPeers(): void {
    this.#deadPeerDetector.check(this.#peers.values());
    this.#options.connectionLimiter.report();
  }

  #closeIdle(): void {
    for (const peer of findIdlePeers(this.#peers.values())) {
      if (peer.exchanges === 0) this.#closePeer(peer);
      else peer.socket.destroy();
    }
  }

  /** Ends a connection with nothing open; over HTTP/2 with a GOAWAY. */
  #closePeer(peer: Peer): void {
    if (peer.h2Session === undefined) peer.socket.destroy();
    else {
      peer.h2Session.close();
      this.#destroyLater(peer); // Node waits for the client to close its side, too.
    }
  }

  /**
   * Not HTTP/1.1, or too slow, or too large. Also hears of TLS errors. Has to end the connection
   * itself: Node does not, and a client that goes on sending would stay for ever.
   */
  #handleClientError(error: Error & { code?: string }, socket: TLSSocket): void {
    const peer = this.#peersByOwner.get(socket);
    // Whoever has been told already may still be sending.
    if (peer?.destroyTimer === undefined) this.#options.onUnreadable(peer ? 'http1' : 'tls', error);
    // An answer that is under way must not have another one in its middle.
    if (peer === undefined || peer.exchanges > 0 || !socket.writable) {
      socket.destroy();
      return;
    }
    socket.end(`HTTP/1.1 ${statusLine(error.code)}\r\nconnection: close\r\n\r\n`);
    this.#destroyLater(peer);
  }

  #destroyLater(peer: Peer): void {
    const destroy = () => peer.socket.destroy();
    peer.destroyTimer ??= setTimeout(destroy, this.#options.endMs).unref();
  }
}

/** The `error` of what is cut off: its close follows, and is what counts. */
function ignore(): void {}

function statusLine(code: string | undefined): string {
  if (code === 'HPE_HEADER_OVERFLOW') return '431 Request Header Fields Too Large';
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return '408 Request Timeout';
  return '400 Bad Request';
}
