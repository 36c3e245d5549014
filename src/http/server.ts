import { IncomingMessage, ServerResponse } from 'node:http';
import {
  createSecureServer,
  type Http2SecureServer,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { type TLSSocket, Server as TlsServer } from 'node:tls';
import type { Logger } from '../logging/logger.js';
import { H1Transport } from './h1-transport.js';
import { H2Transport, type H2TransportOptions } from './h2-transport.js';
import { ConnectionLimiter } from './limits/connection-limiter.js';
import { Connections, type Layer } from './limits/connections.js';
import { type HttpLimits, headerLinesMax } from './limits/limits.js';
import { RequestDispatcher, type RequestDispatcherOptions } from './request-dispatcher.js';

export interface HttpServerOptions extends RequestDispatcherOptions {
  readonly key: string | Buffer;
  readonly cert: string | Buffer;
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

const tlsOptions = { minVersion: 'TLSv1.2' } as const;

/**
 * A TLS server for HTTP/2 and, for clients that do not offer it, HTTP/1.1.
 *
 * HTTP/2 runs on Node's core stream API, HTTP/1.1 on `request`. Code above `Transport` is independent
 * of the protocol.
 */
export class HttpServer {
  readonly #server: Http2SecureServer;
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
    this.#server = createServer(options);
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
    try {
      await new Promise<void>((resolve, reject) => {
        server.#server.once('error', reject);
        server.#server.listen(port, host, () => {
          server.#server.off('error', reject);
          resolve();
        });
      });
    } catch (cause) {
      server.#connections.close();
      throw new Error(`Cannot listen on ${host}:${port}: ${explainListenError(cause)}`, { cause });
    }
    server.#server.on('error', (error) => server.#log.error({ cause: error }, 'server error'));
    return server;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo | null)?.port ?? 0; // Safe: it listens on TCP.
  }

  /** Number of open connections, including those in their TLS handshake. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Number of connections refused since the start, by the maxima and the rates. */
  get connectionsRefused(): number {
    return this.#connections.refused;
  }

  /**
   * Sets the certificate of new connections. Throws, and keeps the old one, if the key does not match.
   */
  setCertificate(key: string | Buffer, cert: string | Buffer): void {
    this.#server.setSecureContext({ ...tlsOptions, key, cert });
  }

  /**
   * Accepts no new connections, closes the open ones as soon as their exchanges are over, and still answers
   * requests that arrive on them (over HTTP/1.1 with `connection: close`). Idempotent.
   */
  stopAccepting(): void {
    if (this.#isStopping) return;
    this.#isStopping = true;
    // Stops listening only. `close()` of an HTTP/2 server also sends GOAWAY to every session (since Node 24),
    // and destroys HTTP/1.1 connections whose last response is not sent yet.
    TlsServer.prototype.close.call(this.#server);
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
    this.#server.close(); // Stops Node's timer for request timeouts.
    this.#connections.close();
  }

  #addListeners(): void {
    const server = this.#server;
    server.on('request', (request, response) => {
      // Checked by class: the HTTP version in the request line is client input.
      if (!(request instanceof IncomingMessage && response instanceof ServerResponse)) return;
      this.#handleHttp1(request, response);
    });
    // A `request` listener enables Node's compatibility layer, which would also handle HTTP/2 streams.
    server.removeAllListeners('stream');
    server.on('stream', (...stream: StreamEvent) => this.#handleHttp2(...stream));
  }

  #handleHttp1(request: IncomingMessage, response: ServerResponse): void {
    for (const emitter of [request, response]) {
      emitter.on('error', this.#logError);
    }
    const socket = request.socket as TLSSocket;
    if (this.#connections.trackExchange(socket, response) === undefined) return;
    const isStopping = () => this.#isStopping;
    const tolerateIdle = () => this.#connections.tolerateIdle(socket, response);
    const options = { endMs: this.#endMs, isStopping, tolerateIdle };
    const dispatch = () =>
      void this.#dispatcher.dispatch(new H1Transport(request, response, options));
    // Pipelined request: wait until Node assigns the socket to this response.
    if (response.socket === null) response.once('socket', dispatch);
    else dispatch();
  }

  #handleHttp2(...[stream, headers, , rawHeaders]: StreamEvent): void {
    // Before anything else: a stream that the client resets with an error would end the process.
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

/**
 * Creates the server with all limits that Node enforces, set explicitly because defaults differ by
 * version.
 */
function createServer({ key, cert, limits }: HttpServerOptions): Http2SecureServer {
  const server = createSecureServer({
    ...tlsOptions,
    key,
    cert,
    ALPNCallback: chooseProtocol,
    allowHTTP1: true,
    handshakeTimeout: limits.handshakeMs,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: 15_000,
    maxHeaderSize: limits.headerListBytesMax,
    settings: {
      maxConcurrentStreams: limits.streamsPerH2SessionMax,
      maxHeaderListSize: limits.headerListBytesMax,
      initialWindowSize: 65_535,
      enablePush: false,
    },
    maxSessionMemory: 10,
    maxSessionInvalidFrames: 100,
    maxSessionRejectedStreams: 50,
    streamResetBurst: 200, // Against rapid reset. Both settings are needed; Node 20 has neither.
    streamResetRate: 20,
    maxSettings: 32,
    maxHeaderListPairs: headerLinesMax,
    maxOutstandingPings: 10,
    unknownProtocolTimeout: 5000,
  } as Parameters<typeof createSecureServer>[0]); // The types lag behind the options.
  server.maxConnections = limits.connectionsMax;
  // For HTTP/1.1, an HTTP/2 server reads these only from properties, and only before `listen`.
  Object.assign(server, {
    headersTimeout: limits.headersMs,
    requestTimeout: 0, // Bodies have limits of their own.
    keepAliveTimeout: limits.idleMs,
    connectionsCheckingInterval: Math.min(limits.headersMs, 5000),
    maxRequestsPerSocket: 0,
  });
  return server;
}

/**
 * Selects HTTP/2 if the client offers it, else HTTP/1.1. A client that offers neither is refused by
 * TLS. Must not throw.
 *
 * This is a function because Node copies an `ALPNProtocols` list per connection, and each copy retains an
 * 8 KiB slab of the Buffer pool.
 */
function chooseProtocol({ protocols }: { protocols: readonly string[] }): string | undefined {
  return ['h2', 'http/1.1'].find((protocol) => protocols.includes(protocol));
}

function explainListenError(cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  if (code === 'EADDRINUSE') return 'the port is in use; set PORT to another';
  if (code === 'EACCES') return 'this account may not use the port; set PORT to 1024 or more';
  if (code === 'ENOTFOUND' || code === 'EADDRNOTAVAIL')
    return 'HOST is not an address of this machine';
  return String(code ?? 'unknown error');
}
