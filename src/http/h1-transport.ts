import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Headers, Sink } from './reply.js';
import { waitForPeer } from './round-trip.js';
import { StreamSink } from './stream-sink.js';
import { parseRawHeaders, type Transport } from './transport.js';

export interface H1TransportOptions {
  readonly endMs: number;
  readonly isStopping: () => boolean;
  /** See `Transport.tolerateIdle`. */
  readonly tolerateIdle: () => void;
  /** Whether the client waits for 100-continue. */
  readonly expectsContinue: boolean;
}

/** An HTTP/1.1 or HTTP/1.0 request and its response. */
export class H1Transport implements Transport {
  readonly protocol = 'http/1.1';
  readonly method: string;
  readonly url: string;
  readonly authority: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly rawHeaders: readonly string[];
  readonly remoteAddress: string;
  readonly input: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #endMs: number;
  readonly #isStopping: () => boolean;
  readonly #tolerateIdle: () => void;
  readonly #expectsContinue: boolean;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    { endMs, isStopping, tolerateIdle, expectsContinue }: H1TransportOptions,
  ) {
    this.#response = response;
    this.#endMs = endMs;
    this.#isStopping = isStopping;
    this.#tolerateIdle = tolerateIdle;
    this.#expectsContinue = expectsContinue;
    this.input = request;
    this.method = request.method ?? '';
    this.rawHeaders = request.rawHeaders;
    this.headers = parseRawHeaders(request.rawHeaders);
    const target = parseTarget(request.url ?? '');
    this.url = target.url;
    const isHostOptional = request.httpVersion === '1.0'; // Used by health checks of load balancers.
    const missing = isHostOptional ? undefined : '';
    this.authority = target.authority ?? this.headers['host'] ?? missing;
    this.remoteAddress = request.socket.remoteAddress ?? '';
  }

  get isBodyTruncated(): boolean {
    return this.input.destroyed && !this.input.complete;
  }

  get isClientGone(): boolean {
    return !this.isAnswered && this.#response.destroyed;
  }

  get isAnswered(): boolean {
    return this.#response.headersSent;
  }

  sendContinue(): void {
    if (!this.#expectsContinue || this.isAnswered || this.isClientGone) return;
    this.#response.writeContinue();
  }

  tolerateIdle(): void {
    this.#tolerateIdle();
  }

  onClientGone(listener: () => void): void {
    if (this.isClientGone) queueMicrotask(listener);
    else this.#response.once('close', () => this.isAnswered || listener());
  }

  send(status: number, headers: Headers, body: Buffer | undefined): void {
    if (this.isClientGone) return;
    // Closing the connection is cheaper than reading the rest of a refused body.
    const isBodyUnread = hasBody(this.headers) && !this.input.complete;
    this.#response.writeHead(
      status,
      isBodyUnread ? withConnectionClose(headers) : this.#addConnectionHeader(headers),
    );
    this.#response.end(body);
  }

  sendHead(status: number, headers: Headers): Sink | undefined {
    if (this.method === 'HEAD') this.send(status, headers, undefined);
    if (this.isClientGone || this.isAnswered) return undefined;
    const response = this.#response;
    response.writeHead(status, this.#addConnectionHeader(headers));
    response.flushHeaders();
    this.input.resume();
    const roundTrip = waitForPeer;
    return new StreamSink({ output: response, destroy, roundTrip, endMs: this.#endMs });
  }

  destroy(): void {
    this.#response.destroy();
  }

  #addConnectionHeader(headers: Headers): Headers {
    return this.#isStopping() ? withConnectionClose(headers) : headers;
  }
}

function destroy(response: ServerResponse): void {
  response.destroy();
}

function withConnectionClose(headers: Headers): Headers {
  return { ...headers, connection: 'close' };
}

function hasBody(headers: Headers): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

/**
 * Splits a request target. The host of an absolute-form target replaces `Host`.
 * Spec: RFC 9112 §3.2.2.
 */
function parseTarget(target: string): { url: string; authority?: string } {
  const [, authority, pathAndQuery = ''] = /^https?:\/\/([^/?#]*)(.*)$/i.exec(target) ?? [];
  if (authority === undefined) return { url: target };
  return { url: pathAndQuery.startsWith('/') ? pathAndQuery : `/${pathAndQuery}`, authority };
}
