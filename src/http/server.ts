import { IncomingMessage, ServerResponse } from 'node:http';
import {
  createSecureServer,
  type Http2SecureServer,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Logger } from '../logging/logger.js';
import { H1Transport } from './h1-transport.js';
import { H2Transport } from './h2-transport.js';
import { ConnectionLimiter } from './limits/connection-limiter.js';
import { Connections, type Layer } from './limits/connections.js';
import { type HttpLimits, headerLinesMax } from './limits/limits.js';
import { RequestDispatcher, type RequestDispatcherOptions } from './request-dispatcher.js';

export interface HttpServerOptions extends RequestDispatcherOptions {
  readonly key: string | Buffer;
  readonly cert: string | Buffer;
  readonly host: string;
  /** 0 takes any that is free. */
  readonly port: number;
  readonly limits: HttpLimits;
  readonly log: Logger;
  /** How often open HTTP/2 sessions are asked for a sign of life, and refusals logged. Default 20,000. */
  readonly pingMs?: number;
  /** A connection ended because its client could not be understood; no request was made of it. */
  readonly onUnreadable?: (layer: Layer) => void;
}

const tlsOptions = { minVersion: 'TLSv1.2' } as const;

/**
 * One TLS server for HTTP/2 and, for clients that do not offer it, HTTP/1.1.
 *
 * HTTP/2 runs on Node's core stream API, HTTP/1.1 on `request`; from there on nobody knows which.
 */
export class HttpServer {
  readonly #server: Http2SecureServer;
  readonly #dispatcher: RequestDispatcher;
  readonly #connections: Connections;
  readonly #log: Logger;
  readonly #endMs: number;
  /** One listener for all. */
  readonly #logError = (cause: Error) => this.#log.debug({ cause }, 'connection error');
  #isStopping = false;
  #closing: Promise<void> | undefined;

  private constructor(options: HttpServerOptions) {
    this.#log = options.log;
    this.#endMs = options.limits.endMs;
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

  /** Settles when it listens. Rejects for a port in use or forbidden, or a bad certificate. */
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
    return (this.#server.address() as AddressInfo | null)?.port ?? 0; // An address: no pipe is used.
  }

  /** Open connections, those that have not finished their TLS handshake included. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Connections reset at once, for `MAX_CONNECTIONS` and the rates, from the beginning. */
  get connectionsRefused(): number {
    return this.#connections.refused;
  }

  /** For connections from now on. Throws, and keeps the old one, for a key that does not fit. */
  setCertificate(key: string | Buffer, cert: string | Buffer): void {
    this.#server.setSecureContext({ ...tlsOptions, key, cert });
  }

  /**
   * Takes no new connections, asks the open ones to end (GOAWAY, `connection: close`), and answers
   * what still comes in on them.
   */
  stopAccepting(): void {
    if (this.#isStopping) return;
    this.#isStopping = true;
    this.#server.close();
    this.#connections.closeGracefully();
  }

  /** Waits for what is open, and cuts it off at the deadline. Twice is fine; never rejects. */
  close(deadlineMs: number): Promise<void> {
    this.#closing ??= this.#close(deadlineMs);
    return this.#closing;
  }

  async #close(deadlineMs: number): Promise<void> {
    this.stopAccepting();
    const deadline = setTimeout(() => this.#connections.destroyAll(), deadlineMs);
    await this.#connections.allClosed();
    clearTimeout(deadline);
    this.#connections.close();
  }

  #addListeners(): void {
    const server = this.#server;
    server.on('request', (request, response) => {
      // By class: a client may write any version into the first line.
      if (!(request instanceof IncomingMessage && response instanceof ServerResponse)) return;
      this.#handleHttp1(request, response);
    });
    // A `request` listener brings Node's compatibility layer along, which takes HTTP/2 streams too.
    server.removeAllListeners('stream');
    server.on('stream', (...stream: StreamEvent) => this.#handleHttp2(...stream));
  }

  #handleHttp1(request: IncomingMessage, response: ServerResponse): void {
    for (const part of [request, response]) {
      part.on('error', this.#logError);
    }
    if (this.#connections.trackExchange(request.socket as TLSSocket, response) === undefined)
      return;
    const isStopping = () => this.#isStopping;
    const options = { endMs: this.#endMs, isStopping };
    const answer = () =>
      void this.#dispatcher.dispatch(new H1Transport(request, response, options));
    // Sent before the one before it was answered: in turn, for only then has it a way back.
    if (response.socket === null) response.once('socket', answer);
    else answer();
  }

  #handleHttp2(...[stream, headers, , rawHeaders]: StreamEvent): void {
    // First of all: a client that resets its stream with an error would end the process.
    stream.on('error', this.#logError);
    const remoteAddress = this.#connections.trackExchange(stream.session, stream);
    if (remoteAddress === undefined) return;
    const request = { headers, rawHeaders, remoteAddress };
    void this.#dispatcher.dispatch(new H2Transport(stream, request, this.#endMs));
  }
}

/** What Node hands to a `stream` listener; its types leave out the raw headers. */
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

/** The limits that Node keeps for us, each set explicitly: its defaults differ by version. */
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
    streamResetBurst: 200, // Rapid reset; both are needed, and Node 20 has neither.
    streamResetRate: 20,
    maxSettings: 32,
    maxHeaderListPairs: headerLinesMax,
    maxOutstandingPings: 10,
    unknownProtocolTimeout: 5000,
  } as Parameters<typeof createSecureServer>[0]); // The types lag behind the options.
  server.maxConnections = limits.connectionsMax;
  // HTTP/1.1 on an HTTP/2 server: only properties are looked at, and only before `listen`.
  Object.assign(server, {
    headersTimeout: limits.headersMs,
    requestTimeout: limits.headersMs + limits.bodyMs,
    keepAliveTimeout: limits.idleMs,
    connectionsCheckingInterval: Math.min(limits.headersMs, 5000),
    maxRequestsPerSocket: 0,
  });
  return server;
}

/**
 * HTTP/2 for who can. As a function, for a list is copied for each connection, and each copy keeps
 * alive the 8 KiB that it was cut from, with the small Buffers of whatever else goes on. A
 * client that offers neither is refused by TLS. Must not throw.
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
