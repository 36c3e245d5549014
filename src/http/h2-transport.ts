import {
  constants,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
  sensitiveHeaders,
} from 'node:http2';
import { isSameAuthority } from './authority.js';
import type { Headers, Sink } from './reply.js';
import { pingPeer } from './round-trip.js';
import { StreamSink } from './stream-sink.js';
import { parseRawHeaders, type Transport } from './transport.js';

const { NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR } = constants;

/** Shared by all requests of a server. */
export interface H2TransportOptions {
  readonly endMs: number;
  /** See `Transport.tolerateIdle`. */
  readonly tolerateIdle: (stream: ServerHttp2Stream) => void;
}

export interface H2Request {
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  readonly remoteAddress: string;
}

/** An HTTP/2 request and its response, on Node's core stream API, without the compatibility layer. */
export class H2Transport implements Transport {
  readonly protocol = 'h2';
  readonly method: string;
  readonly url: string;
  readonly authority: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly rawHeaders: readonly string[];
  readonly remoteAddress: string;
  readonly input: ServerHttp2Stream;
  readonly #stream: ServerHttp2Stream;
  readonly #options: H2TransportOptions;

  constructor(
    stream: ServerHttp2Stream,
    { headers, rawHeaders, remoteAddress }: H2Request,
    options: H2TransportOptions,
  ) {
    this.#stream = stream;
    this.#options = options;
    this.input = stream;
    this.rawHeaders = rawHeaders;
    this.headers = parseRawHeaders(rawHeaders);
    this.method = String(headers[':method'] ?? '');
    this.url = String(headers[':path'] ?? '');
    this.authority = resolveAuthority(headers, this.headers['host']);
    this.remoteAddress = remoteAddress;
  }

  get isBodyTruncated(): boolean {
    return this.#stream.aborted || this.#stream.destroyed;
  }

  get isClientGone(): boolean {
    return !this.isAnswered && (this.#stream.destroyed || this.#stream.closed);
  }

  get isAnswered(): boolean {
    return this.#stream.headersSent;
  }

  /** Sends 100-continue, which Node does only in its compatibility layer. */
  sendContinue(): void {
    const expectsContinue = this.headers['expect']?.toLowerCase() === '100-continue';
    if (!expectsContinue || this.isAnswered || this.isClientGone) return;
    this.#stream.additionalHeaders({ ':status': 100 });
  }

  tolerateIdle(): void {
    this.#options.tolerateIdle(this.#stream);
  }

  onClientGone(listener: () => void): void {
    if (this.isClientGone) queueMicrotask(listener);
    else this.#stream.once('close', () => this.isAnswered || listener());
  }

  send(status: number, headers: Headers, body: Buffer | undefined): void {
    if (this.isClientGone) return; // `respond` throws on a closed stream.
    const stream = this.#stream;
    const endStream = body === undefined || this.method === 'HEAD';
    stream.respond({ ':status': status, ...headers }, { endStream });
    if (!endStream) stream.end(body);
    // Stops the client from sending the rest of a request that was answered early: RFC 9113 §8.1.
    // Deferred, because Node 26 would reset the stream before it sends a response without a body.
    if (!stream.endAfterHeaders && !stream.readableEnded) setImmediate(() => stream.close());
    const deadline = setTimeout(() => cancel(stream), this.#options.endMs).unref();
    stream.once('close', () => clearTimeout(deadline));
  }

  sendHead(status: number, headers: Headers): Sink | undefined {
    if (this.method === 'HEAD') this.send(status, headers, undefined);
    if (this.isClientGone || this.isAnswered) return undefined;
    const stream = this.#stream;
    stream.respond({ ':status': status, ...headers, [sensitiveHeaders]: getHeaderNames(headers) });
    stream.resume(); // The request body is discarded, so that the readable side can end.
    const { session } = stream;
    const roundTrip = async () => (session === undefined ? undefined : pingPeer(session));
    const { endMs } = this.#options;
    return new StreamSink({ output: stream, destroy: cancel, roundTrip, endMs });
  }

  destroy(): void {
    this.#stream.close(NGHTTP2_INTERNAL_ERROR);
  }
}

let cachedNames: readonly string[] = [];

/**
 * Returns the header names of a streamed response, all of which are sent as never-indexed: indexing would
 * cost an HPACK table of 2 KiB per connection, and save only a few bytes per stream, because a stream sends
 * one head. Node retains the array with each stream, so streams share one array while the names are equal.
 */
function getHeaderNames(headers: Headers): string[] {
  const areNamesCached =
    cachedNames.length > 0 && Object.keys(headers).every((name) => cachedNames.includes(name));
  if (!areNamesCached) cachedNames = Object.keys(headers);
  return cachedNames as string[]; // Safe: Node does not modify it.
}

/** Destroys a stream now. `close` alone would wait for a connection whose peer reads nothing. */
function cancel(stream: ServerHttp2Stream): void {
  stream.close(NGHTTP2_CANCEL);
  stream.destroy();
}

/**
 * Returns the authority; empty when it is missing, or when `:authority` and `Host` name different servers.
 * Spec: RFC 9113 §8.3.1.
 */
function resolveAuthority(headers: IncomingHttpHeaders, host: string | undefined): string {
  const authority = String(headers[':authority'] ?? host ?? '');
  const scheme = String(headers[':scheme'] ?? '').toLowerCase();
  return host === undefined || isSameAuthority(host, authority, scheme) ? authority : '';
}
