import type { Http2Session } from 'node:http2';
import type { Socket } from 'node:net';
import type { NodeServer, Protocol } from '../servers/node-server.js';
import type { ConnectionLimiter } from './connection-limiter.js';
import { DeadPeerDetector, type MonitoredPeer } from './dead-peer-detector.js';
import { checksPerTimeout, findIdlePeers, type IdleTrackedPeer } from './idle-peers.js';
import { toConnectionKey } from './unacked-bytes.js';
import { toStatusLine, type UnreadableError } from './unreadable.js';

export interface ConnectionsOptions {
  /** Maximum number of concurrent exchanges per connection. Node enforces it for HTTP/2. */
  readonly exchangesMax: number;
  /** How long a client may take to close its side after GOAWAY or the last response. */
  readonly endMs: number;
  /**
   * Idle timeout: a connection is idle after this time, or up to an eighth later. An idle connection without
   * exchanges is closed, over HTTP/2 with GOAWAY; an idle connection with exchanges is destroyed. See
   * `findIdlePeers`.
   */
  readonly idleMs: number;
  /** Interval of liveness checks of connections with open exchanges. */
  readonly pingMs: number;
  readonly connectionLimiter: ConnectionLimiter;
  /** Called when a connection fails at `layer`; the connection ends. Must not throw. */
  readonly onUnreadable: (layer: Layer, cause: Error) => void;
}

/** A protocol layer at which a connection can fail before there is a request to answer. */
export type Layer = 'tls' | 'http1';

/** A TCP connection, from before its TLS handshake or its first byte until it is closed. */
interface Peer extends MonitoredPeer, IdleTrackedPeer {
  /** Destroying the socket also ends the TLS socket and HTTP/2 session on it, in any state. */
  readonly socket: Socket;
  h2Session: Http2Session | undefined;
  /** Open exchanges, including pipelined requests that wait. */
  readonly openExchanges: Set<ExchangeEmitter>;
  /**
   * Sends the error response for unreadable data after the open exchanges, and ends the connection. Undefined
   * until such data arrives; afterwards no exchange begins.
   */
  refuseRest: (() => void) | undefined;
  /** Set once the client has been asked to close the connection. */
  destroyTimer: NodeJS.Timeout | undefined;
}

/** An HTTP/2 stream or an HTTP/1.1 response, which emits `close` when its exchange is over. */
interface ExchangeEmitter {
  readonly headersSent: boolean;
  /** Whether the handler has ended the response. Node emits `close` when the response is sent completely. */
  readonly writableEnded: boolean;
  /** The request of an HTTP/1.1 response. */
  readonly req?: { readonly complete: boolean };
  on(event: 'close', listener: () => void): unknown;
}

/** Tracks the open TCP connections of a server: limits, liveness checks, shutdown. */
export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #peers = new Map<string, Peer>();
  /** Peers by the object on which requests arrive: an HTTP/2 session, or a socket (with TLS, the TLS socket). */
  readonly #peersByOwner = new WeakMap<object, Peer>();
  readonly #deadPeerDetector: DeadPeerDetector;
  readonly #checkTimer: NodeJS.Timeout;
  readonly #idleTimer: NodeJS.Timeout;
  /** The peer whose HTTP/2 session Node is about to create. See `NodeServer.onProtocol`. */
  #h2Peer: Peer | undefined;
  #emptyWaiters: (() => void)[] = [];
  #isClosing = false;

  constructor(server: NodeServer, options: ConnectionsOptions) {
    this.#options = options;
    this.#deadPeerDetector = new DeadPeerDetector(options.pingMs);
    this.#checkTimer = setInterval(() => this.#checkPeers(), options.pingMs).unref();
    this.#idleTimer = setInterval(
      () => this.#enforceIdleTimeout(),
      options.idleMs / checksPerTimeout,
    ).unref();
    server.tcp.on('connection', (socket) => this.#add(socket));
    options.connectionLimiter.attachTo(server.tcp);
    server.onProtocol((socket, protocol) => this.#setProtocol(socket, protocol));
    server.http2.on('session', (session: Http2Session) => this.#addH2Session(session));
    server.http1.on('clientError', (error: Error, socket: Socket) =>
      this.#handleClientError(error, socket),
    );
  }

  /** Number of TCP connections, with or without a completed TLS handshake. */
  get size(): number {
    return this.#peers.size;
  }

  /** Number of connections refused by a limit since the start. */
  get refused(): number {
    return this.#options.connectionLimiter.refused;
  }

  /**
   * Tracks an exchange until it closes. Returns the remote address, or undefined when the connection is
   * unknown, destroyed or about to end. Destroys the connection if this exchange exceeds `exchangesMax`.
   */
  trackExchange(
    owner: Socket | Http2Session | undefined,
    exchange: ExchangeEmitter,
  ): string | undefined {
    const peer = owner === undefined ? undefined : this.#peersByOwner.get(owner);
    if (peer === undefined || peer.socket.destroyed || peer.refuseRest) return undefined;
    peer.openExchanges.add(exchange);
    if (peer.exchangeCount > this.#options.exchangesMax) {
      peer.socket.destroy();
      return undefined;
    }
    exchange.on('close', () => {
      peer.openExchanges.delete(exchange);
      peer.idleChecks = 0;
      if (peer.exchangeCount > 0) return;
      if (peer.refuseRest) peer.refuseRest();
      else if (this.#isClosing) this.#closePeer(peer);
    });
    return peer.socket.remoteAddress ?? '';
  }

  /** Exempts a connection from the idle timeout until this exchange on it ends. */
  tolerateIdle(owner: Socket | Http2Session | undefined, exchange: ExchangeEmitter): void {
    const peer = owner === undefined ? undefined : this.#peersByOwner.get(owner);
    if (peer === undefined || !peer.openExchanges.has(exchange)) return;
    peer.idleToleratingCount += 1;
    exchange.on('close', () => {
      peer.idleToleratingCount -= 1;
    });
  }

  /**
   * Closes every connection, at once or as soon as its exchanges are over. Over HTTP/2, GOAWAY is
   * sent only after the streams have ended, because some clients drop open streams when they receive it.
   */
  closeGracefully(): void {
    this.#isClosing = true;
    for (const peer of this.#peers.values()) if (peer.exchangeCount === 0) this.#closePeer(peer);
  }

  /**
   * Asks the clients of the remaining HTTP/2 connections to start no further exchanges. While ended
   * responses are still being sent on a connection, GOAWAY waits for them, at most `endMs`: Node would send
   * it before their last frames, and some clients drop open streams when they receive it.
   */
  sendGoaway(): void {
    for (const { h2Session, openExchanges } of this.#peers.values()) {
      const send = () => h2Session?.close();
      const unsent = new Set([...openExchanges].filter(({ writableEnded }) => writableEnded));
      if (unsent.size === 0) {
        send();
        continue;
      }
      const timer = setTimeout(send, this.#options.endMs).unref();
      for (const exchange of unsent) {
        exchange.on('close', () => {
          unsent.delete(exchange);
          if (unsent.size > 0) return;
          clearTimeout(timer);
          send();
        });
      }
    }
  }

  /** Destroys every connection now. */
  destroyAll(): void {
    for (const { socket } of this.#peers.values()) socket.destroy();
  }

  /** Settles when no connection is open. */
  allClosed(): Promise<void> {
    if (this.#peers.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#emptyWaiters.push(resolve));
  }

  /** Stops the timers and reports the last refusals. */
  close(): void {
    clearInterval(this.#checkTimer);
    clearInterval(this.#idleTimer);
    this.#options.connectionLimiter.report();
  }

  #add(socket: Socket): void {
    const key = toConnectionKey(socket);
    const openExchanges = new Set<ExchangeEmitter>();
    const peer: Peer = {
      socket,
      h2Session: undefined,
      openExchanges,
      get exchangeCount() {
        return openExchanges.size;
      },
      bytesReadAtPing: undefined,
      ackedBytesMax: undefined,
      lastTotalBytes: 0,
      idleChecks: 0,
      idleToleratingCount: 0,
      refuseRest: undefined,
      destroyTimer: undefined,
    };
    this.#peers.set(key, peer);
    socket.on('error', ignore);
    socket.on('close', () => {
      clearTimeout(peer.destroyTimer);
      if (this.#peers.get(key) === peer) this.#peers.delete(key); // The key may belong to a newer connection.
      if (this.#peers.size > 0) return;
      for (const resolve of this.#emptyWaiters.splice(0)) resolve();
    });
  }

  /** `socket` is the TLS socket of a peer or, without TLS, its TCP socket. */
  #setProtocol(socket: Socket, protocol: Protocol): void {
    socket.on('error', ignore);
    const peer = this.#peers.get(toConnectionKey(socket));
    if (peer === undefined) {
      socket.destroy(); // The TCP connection is already closed.
      return;
    }
    peer.idleChecks = 0;
    if (protocol === 'h2') this.#h2Peer = peer;
    else this.#peersByOwner.set(socket, peer);
  }

  #addH2Session(h2Session: Http2Session): void {
    h2Session.on('error', ignore);
    const peer = this.#h2Peer;
    this.#h2Peer = undefined;
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

  #enforceIdleTimeout(): void {
    for (const peer of findIdlePeers(this.#peers.values())) {
      if (peer.exchangeCount === 0) this.#closePeer(peer);
      else peer.socket.destroy();
    }
  }

  /** Closes a connection without exchanges; over HTTP/2 with GOAWAY. */
  #closePeer(peer: Peer): void {
    if (peer.h2Session === undefined) peer.socket.destroy();
    else {
      peer.h2Session.close();
      this.#destroyLater(peer); // Node waits until the client closes its side.
    }
  }

  /**
   * Handles `clientError`: a parse error, a header timeout, oversized headers, or a TLS error. The complete
   * requests before the error are answered first. Then this sends the error response and ends the connection:
   * Node does neither, and a client that keeps sending would stay connected forever.
   */
  #handleClientError(error: UnreadableError, socket: Socket): void {
    const peer = this.#peersByOwner.get(socket);
    if (peer?.refuseRest && peer.exchangeCount > 0) return; // A later error of a client that keeps sending.
    // Reported once, although a client that has its error response may still be sending.
    if (peer?.destroyTimer === undefined) this.#options.onUnreadable(peer ? 'http1' : 'tls', error);
    const exchanges = [...(peer?.openExchanges ?? [])];
    if (peer === undefined || !socket.writable || !exchanges.every(canEndWithoutInput)) {
      socket.destroy();
      return;
    }
    const statusLine = toStatusLine(error);
    peer.refuseRest = () => {
      if (!socket.writable) return; // Node ends the connection after the last response.
      socket.end(`HTTP/1.1 ${statusLine}\r\nconnection: close\r\n\r\n`);
      this.#destroyLater(peer);
    };
    if (exchanges.length === 0) peer.refuseRest();
  }

  #destroyLater(peer: Peer): void {
    const destroy = () => peer.socket.destroy();
    peer.destroyTimer ??= setTimeout(destroy, this.#options.endMs).unref();
  }
}

/** Ignores `error`, because `close` follows and is handled. */
function ignore(): void {}

/**
 * Whether an exchange over HTTP/1.1 ends without more bytes of its request. False for a response that is being
 * streamed: it has no foreseeable end, and an error response must not be written into it.
 */
function canEndWithoutInput({ req, headersSent, writableEnded }: ExchangeEmitter): boolean {
  return req?.complete === true && (!headersSent || writableEnded);
}
