import type { Rate } from '../../util/token-bucket.js';

/** Header lines of a request, pseudo-headers included. Over the limit: stream reset, or 431. */
export const headerLinesMax = 128;

/**
 * Maximum total size of the bodies being read, except on routes with their own budget: 8192 bodies of
 * maximum size by default. One IP key may use an eighth of it. Over the limit: 503.
 */
export const bodiesBytesMax = 64 * 1024 * 1024;

/**
 * Requests that a client may abort before their response. Over the limit: a client that is connected directly
 * over HTTP/2 is disconnected; one behind a proxy gets 429.
 */
export const abortRate: Rate = { count: 200, perMs: 10_000 };

/** All limits of the server, in milliseconds and bytes. */
export interface HttpLimits {
  /** Open TCP connections. Over the limit: reset, which a client sees as a network error. */
  readonly connectionsMax: number;
  /** Open TCP connections per IP key. Over the limit: reset. */
  readonly connectionsPerIpMax: number;
  /** New TCP connections in total. Over the limit: reset. */
  readonly acceptRate: Rate;
  /** New TCP connections per IP key. Over the limit: reset. */
  readonly acceptIpRate: Rate;
  /**
   * Concurrent requests and streams per connection. Over the limit: HTTP/2 clients wait or get the
   * stream refused; an HTTP/1.1 connection with more pipelined requests is destroyed.
   */
  readonly streamsPerH2SessionMax: number;
  /** All header lines of a request together. Over the limit: stream reset, or 431. */
  readonly headerListBytesMax: number;
  /** Size of a body, unless its route sets another limit. Over the limit: 413. */
  readonly bodyBytesMax: number;
  /** Nesting depth of a JSON body. Over the limit: 400. */
  readonly jsonDepthMax: number;
  /** Time from the TCP connection to the end of its TLS handshake. Over the limit: closed. */
  readonly handshakeMs: number;
  /** Time to receive the headers of an HTTP/1.1 request. Over the limit: 408. */
  readonly headersMs: number;
  /** Time to receive a complete body. Over the limit: 408. */
  readonly bodyMs: number;
  /** Time without activity on a connection. Over the limit: closed. */
  readonly idleMs: number;
  /**
   * Time for a client to read the rest of a response, or to close its side after GOAWAY. Over the
   * limit: destroyed.
   */
  readonly endMs: number;
}

export const defaultHttpLimits: HttpLimits = {
  connectionsMax: 20_000,
  acceptRate: { count: 500, perMs: 1250 },
  acceptIpRate: { count: 500, perMs: 2000 },
  connectionsPerIpMax: 5000,
  streamsPerH2SessionMax: 128,
  headerListBytesMax: 16_384,
  bodyBytesMax: 8192,
  jsonDepthMax: 32,
  handshakeMs: 10_000,
  headersMs: 10_000,
  bodyMs: 10_000,
  idleMs: 60_000,
  endMs: 10_000,
};
