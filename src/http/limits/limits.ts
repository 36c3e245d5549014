import type { Rate } from '../../util/token-bucket.js';

/** Header lines of a request, pseudo headers counted; beyond: the stream is reset, or 431. */
export const headerLinesMax = 128;

/**
 * All bodies that are being read, but for those of routes with a budget of their own; beyond: 503.
 * By default that is 8192 bodies at once, each of them as large as it may be. One place has an eighth.
 */
export const bodiesBytesMax = 64 * 1024 * 1024;

/** Every limit of the server. Milliseconds and bytes. */
export interface HttpLimits {
  /** TCP connections; further ones are reset, which a client takes for a broken network. */
  readonly connectionsMax: number;
  /** TCP connections of one place; further ones are reset. */
  readonly connectionsPerIpMax: number;
  /** New TCP connections, in all and of one place; further ones are reset. */
  readonly acceptRate: Rate;
  readonly acceptIpRate: Rate;
  /**
   * Requests and streams at once on one connection. Over HTTP/2 further ones wait at the client or
   * are refused; over HTTP/1.1, where they wait for each other, the connection is cut off.
   */
  readonly streamsPerH2SessionMax: number;
  /** All header lines of a request; beyond: the stream is reset, or 431. */
  readonly headerListBytesMax: number;
  /** A body, unless its route says otherwise; beyond: 413. */
  readonly bodyBytesMax: number;
  /** Nesting of a JSON body; beyond: 400. */
  readonly jsonDepthMax: number;
  /** From a TCP connection to the end of its TLS handshake; beyond: closed. */
  readonly handshakeMs: number;
  /** For the header lines of a request over HTTP/1.1; beyond: 408. */
  readonly headersMs: number;
  /** For a whole body; beyond: 408. */
  readonly bodyMs: number;
  /** A connection on which nothing moves; beyond: closed. */
  readonly idleMs: number;
  /** For a client to take what is left of its answer, or to leave when asked; beyond: cut off. */
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
