import { IncomingMessage, ServerResponse } from 'node:http';
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { type AddressInfo, Server as TcpServer } from 'node:net';
import type { Logger } from '../logging/logger.js';
import { H1Transport } from './h1-transport.js';
import { H2Transport, type H2TransportOptions } from './h2-transport.js';
import { ConnectionLimiter } from './limits/connection-limiter.js';
import { Connections, type Layer } from './limits/connections.js';
import type { HttpLimits } from './limits/limits.js';
import { RequestDispatcher, type RequestDispatcherOptions } from './request-dispatcher.js';
import type { NodeServer } from './servers/node-server.js';
import { createPlainServer } from './servers/plain-server.js';
import { type Certificate, createTlsServer, type TlsServer } from './servers/tls-server.js';

export interface HttpServerOptions extends RequestDispatcherOptions {
  /** Undefined: the server does not use TLS. */
  readonly certificate: Certificate | undefined;
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly limits: HttpLimits;
  readonly log: Logger;
  /**
   * Interval of liveness checks and of the log line about refused connections. Default: 20,000.
   */
  readonly pingMs?: number;
  /** Called when a TLS handshake or the parsing of HTTP/1.1 fails; the connection ends. */
  readonly onUnreadable?: (layer: Layer) => void;
}

/**
 * A server for HTTP/2 and HTTP/1.1, with or without TLS.
 *
 * HTTP/2 runs on Node's core stream API, HTTP/1.1 on `request`. Code above `Transport` is independent
 * of the protocol.
 */
export class HttpServer {
  readonly #server: NodeServer;
  readonly #tlsServer: TlsServer | undefined;
  readonly #dispatcher: RequestDispatcher;
  readonly #connections: Connections;
  readonly #log: Logger;
  readonly #endMs: number;
  readonly #h2Options: H2TransportOptions;
  /** One shared listener instead of a closure per request. */
  readonly #logError = (cause: Error) => this.#log.debug({ cause }, 'connection error');
  #isStopping = false;
  #closing: Promise<void> | undefined;

  private constructor(options: HttpServerOptions) {
    this.#log = options.log;
    this.#endMs = options.limits.endMs;
    this.#h2Options = {
      endMs: this.#endMs,
      tolerateIdle: (stream) => this.#connections.tolerateIdle(stream.session, stream),
    };
    this.#dispatcher = new RequestDispatcher(options);
    const { certificate } = options;
    this.#tlsServer = certificate && createTlsServer(certificate, options);
    this.#server = this.#tlsServer ?? createPlainServer(options);
    this.#connections = new Connections(this.#server, {
      connectionLimiter: createConnectionLimiter(options),
      exchangesMax: options.limits.streamsPerH2SessionMax,
      endMs: options.limits.endMs,
      idleMs: options.limits.idleMs,
      pingMs: options.pingMs ?? 20_000,
      onUnreadable: (layer, cause) => {
        options.onUnreadable?.(layer);
        options.log.debug({ layer, cause }, 'unreadable connection');
      },
    });
    this.#addListeners();
  }

  /**
   * Resolves when the server listens. Rejects when the port is in use or not permitted, the host is not an
   * address of this machine, or the certificate is invalid.
   */
  static async listen(options: HttpServerOptions): Promise<HttpServer> {
    const { host, port } = options;
    const server = new HttpServer(options);
    const { tcp } = server.#server;
    try {
      await new Promise<void>((resolve, reject) => {
        tcp.once('error', reject);
        tcp.listen(port, host, () => {
          tcp.off('error', reject);
          resolve();
        });
      });
    } catch (cause) {
      server.#connections.close();
      throw new Error(`Cannot listen on ${host}:${port}: ${explainListenError(cause)}`, { cause });
    }
    tcp.on('error', (error) => server.#log.error({ cause: error }, 'server error'));
    return server;
  }

  get port(): number {
    return (this.#server.tcp.address() as AddressInfo | null)?.port ?? 0; // Safe: it listens on TCP.
  }

  /** Number of open connections, including those that have not sent a request or are in their TLS handshake. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Number of connections refused since the start because of a maximum or a rate. */
  get connectionsRefused(): number {
    return this.#connections.refused;
  }

  /**
   * Sets the certificate of new connections. Throws, and keeps the old one, if the key does not match. Does
   * nothing without TLS.
   */
  setCertificate(certificate: Certificate): void {
    this.#tlsServer?.setCertificate(certificate);
  }

  /**
   * Accepts no new connections, and closes each open connection as soon as its exchanges are over. Requests that
   * arrive on open connections are still answered (over HTTP/1.1 with `connection: close`). Idempotent.
   */
  stopAccepting(): void {
    if (this.#isStopping) return;
    this.#isStopping = true;
    // Only stops listening. `close()` of Node's HTTP servers also destroys HTTP/1.1 connections whose last
    // response is not sent yet, and that of an HTTP/2 server sends GOAWAY to every session (since Node 24).
    TcpServer.prototype.close.call(this.#server.tcp);
    this.#connections.closeGracefully();
  }

  /**
   * Stops accepting, asks clients to begin no further exchanges (GOAWAY), waits until all connections are
   * closed, and destroys those that are still open after `deadlineMs`. Idempotent; never rejects.
   */
  close(deadlineMs: number): Promise<void> {
    this.#closing ??= this.#close(deadlineMs);
    return this.#closing;
  }

  async #close(deadlineMs: number): Promise<void> {
    this.stopAccepting();
    this.#connections.sendGoaway();
    const deadline = setTimeout(() => this.#connections.destroyAll(), deadlineMs);
    await this.#connections.allClosed();
    clearTimeout(deadline);
    this.#server.tcp.close(); // Stops Node's timer for request timeouts.
    this.#connections.close();
  }

  #addListeners(): void {
    const { http1, http2 } = this.#server;
    for (const event of ['request', 'checkContinue']) {
      http1.on(event, (request: unknown, response: unknown) => {
        // Checked by class: the HTTP version in the request line is client input.
        if (!(request instanceof IncomingMessage && response instanceof ServerResponse)) return;
        this.#handleHttp1(request, response, event === 'checkContinue');
      });
    }
    // A `request` listener enables Node's compatibility layer, which would also handle HTTP/2 streams.
    http2.removeAllListeners('stream');
    http2.on('stream', (...stream: StreamEvent) => this.#handleHttp2(...stream));
  }

  #handleHttp1(request: IncomingMessage, response: ServerResponse, expectsContinue: boolean): void {
    for (const emitter of [request, response]) {
      emitter.on('error', this.#logError);
    }
    const { socket } = request;
    if (this.#connections.trackExchange(socket, response) === undefined) return;
    const isStopping = () => this.#isStopping;
    const tolerateIdle = () => this.#connections.tolerateIdle(socket, response);
    const options = { endMs: this.#endMs, isStopping, tolerateIdle, expectsContinue };
    const dispatch = () =>
      void this.#dispatcher.dispatch(new H1Transport(request, response, options));
    // Pipelined request: wait until Node assigns the socket to this response.
    if (response.socket === null) response.once('socket', dispatch);
    else dispatch();
  }

  #handleHttp2(...[stream, headers, , rawHeaders]: StreamEvent): void {
    // Added first: without a listener, a stream that its client resets with an error would end the process.
    stream.on('error', this.#logError);
    const remoteAddress = this.#connections.trackExchange(stream.session, stream);
    if (remoteAddress === undefined) return;
    const request = { headers, rawHeaders, remoteAddress };
    void this.#dispatcher.dispatch(new H2Transport(stream, request, this.#h2Options));
  }
}

/** The arguments of a `stream` listener. Node's types omit the raw headers. */
type StreamEvent = [
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  flags: number,
  rawHeaders: readonly string[],
];

function createConnectionLimiter({
  limits,
  trustProxyHops,
  log,
}: HttpServerOptions): ConnectionLimiter {
  const { acceptRate: rate, acceptIpRate, connectionsPerIpMax: openMax } = limits;
  const perIp = trustProxyHops === 0 ? { rate: acceptIpRate, openMax } : undefined;
  return new ConnectionLimiter({ rate, perIp, log });
}

function explainListenError(cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  if (code === 'EADDRINUSE') return 'the port is in use; set PORT to another';
  if (code === 'EACCES') return 'this account may not use the port; set PORT to 1024 or more';
  if (code === 'ENOTFOUND' || code === 'EADDRNOTAVAIL')
    return 'HOST is not an address of this machine';
  return String(code ?? 'unknown error');
}
