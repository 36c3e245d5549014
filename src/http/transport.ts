import type { Readable } from 'node:stream';
import type { Headers, Sink } from './reply.js';

/** A request over either protocol, and the means to send its response. */
export interface Transport {
  readonly protocol: 'h2' | 'http/1.1';
  readonly method: string;
  readonly url: string;
  /** The host, possibly with a port. If the request has none: undefined in HTTP/1.0, otherwise empty. */
  readonly authority: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  /** Name, value, name, value, …, as received. */
  readonly rawHeaders: readonly string[];
  readonly remoteAddress: string;
  readonly input: Readable;
  /** Whether the client aborted before the whole body was received. */
  readonly isBodyTruncated: boolean;
  /** Whether the client disconnected or aborted the request before the response. */
  readonly isClientGone: boolean;
  /** Whether a response head has been sent. */
  readonly isAnswered: boolean;
  /**
   * Sends 100-continue to a client that expects it. Called when the body is about to be read. Spec: RFC 9110
   * §10.1.1.
   */
  sendContinue(): void;
  /**
   * Exempts the connection from the idle timeout until the exchange ends. Used for a body with its own limit
   * on pauses.
   */
  tolerateIdle(): void;
  /** Calls the listener once `isClientGone` is true; asynchronously if `isClientGone` is already true. */
  onClientGone(listener: () => void): void;
  /** Sends a complete response. Does nothing when `isClientGone`. Throws for an invalid header. */
  send(status: number, headers: Headers, body: Buffer | undefined): void;
  /**
   * Sends the head of a streamed response and returns the sink of its body; undefined for HEAD, and when
   * `isClientGone`. Throws for an invalid header.
   */
  sendHead(status: number, headers: Headers): Sink | undefined;
  /** Aborts the response, whether or not a part of it has been sent. */
  destroy(): void;
}

/**
 * Returns header values by lower-case name. Joins the values of a repeated header with a comma, and those of
 * `cookie` with a semicolon.
 */
export function parseRawHeaders(rawHeaders: readonly string[]): Readonly<Record<string, string>> {
  const headers: Record<string, string> = Object.create(null);
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = (rawHeaders[index] ?? '').toLowerCase();
    if (name.startsWith(':')) continue;
    const value = rawHeaders[index + 1] ?? '';
    const previous = headers[name];
    headers[name] =
      previous === undefined ? value : previous + (name === 'cookie' ? '; ' : ', ') + value;
  }
  return headers;
}
