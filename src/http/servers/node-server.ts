import type { EventEmitter } from 'node:events';
import type { Server, Socket } from 'node:net';

export type Protocol = 'h2' | 'http/1.1';

/** Gets the TLS socket of a connection or, without TLS, its TCP socket. */
export type ProtocolListener = (socket: Socket, protocol: Protocol) => void;

/**
 * Node's servers for HTTP/2 and HTTP/1.1 on one port, with TLS (`createTlsServer`) or without
 * (`createPlainServer`).
 */
export interface NodeServer {
  /** Accepts the connections: emits `connection`, `drop` and `error`. */
  readonly tcp: Server;
  /** Emits `request`, `checkContinue` (a `request` whose client waits for 100-continue) and `clientError`. */
  readonly http1: EventEmitter;
  /** Emits `session` and `stream`. */
  readonly http2: EventEmitter;
  /**
   * Sets the listener for connections whose protocol is known. It is called before the connection causes any
   * event of `http1` or `http2`; the `session` of an HTTP/2 connection is emitted in the same event-loop turn.
   */
  onProtocol(listener: ProtocolListener): void;
}
