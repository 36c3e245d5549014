import { randomUUID } from 'node:crypto';
import { Failure } from '../errors.js';
import { type BodyLimits, parseBody, readBody } from './body/body.js';
import type { BodyBudget } from './body/body-budget.js';
import { type LineLimits, readLines } from './body/body-lines.js';
import { clientIp } from './client-ip.js';
import { toIpKey } from './ip-key.js';
import type { Transport } from './transport.js';

/** A request as a handler sees it, the same for both protocols. */
export interface Exchange {
  /** The request id: the client's own `x-request-id` if it is sound, else made up. */
  readonly id: string;
  readonly protocol: 'h2' | 'http/1.1';
  readonly method: string;
  /** Path and query, as sent. */
  readonly url: string;
  readonly path: string;
  readonly query: URLSearchParams;
  /** By lower-case name, without pseudo headers; repeated ones are joined with a comma. */
  readonly headers: Readonly<Record<string, string>>;
  /** Every line of a header, also where `headers` has them joined. */
  headerValues(name: string): readonly string[];
  /** The host the client asked for, without port. */
  readonly hostname: string;
  /** The client's address, as far as `trustProxyHops` lets headers be believed. */
  readonly ip: string;
  /** Aborts when the client leaves before it is answered. */
  readonly signal: AbortSignal;
  /**
   * The whole body, as JSON or, with `form`, also as form fields; undefined when there is none.
   *
   * Throws `invalid_request` for what is not UTF-8, not JSON, too deep or was cut off;
   * `unsupported_media_type`; `payload_too_large`; `request_timeout`; `service_unavailable` when the
   * bodies of other requests take all the room. To be called once.
   */
  body(options?: BodyOptions): Promise<unknown>;
  /**
   * The values of a body of JSON lines (`application/x-ndjson`), read as fast as they are taken.
   * Instead of `body`, and once. Throws as `readLines`.
   */
  lines(options: Pick<LineLimits, 'bytesMax' | 'lineBytesMax'>): AsyncIterable<unknown>;
}

export interface BodyOptions {
  /** Counted, whatever `content-length` says. By default the server's own limit. */
  readonly bytesMax?: number;
  /** What it counts towards. By default one for all bodies of the server. */
  readonly budget?: BodyBudget;
  readonly form?: boolean;
}

export interface ExchangeOptions {
  readonly limits: Omit<BodyLimits, 'ipKey'>;
  readonly trustProxyHops: number;
}

const requestIdPattern = /^[\w-]{8,64}$/;

/** Most of it is worked out only when it is asked for. */
export class TransportExchange implements Exchange {
  readonly id: string;
  readonly protocol: 'h2' | 'http/1.1';
  readonly method: string;
  readonly url: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly #transport: Transport;
  readonly #options: ExchangeOptions;
  #query: URLSearchParams | undefined;
  #controller: AbortController | undefined;
  #isBodyRead = false;

  constructor(transport: Transport, options: ExchangeOptions) {
    this.#transport = transport;
    this.#options = options;
    this.protocol = transport.protocol;
    this.method = transport.method;
    this.url = transport.url;
    const end = this.url.indexOf('?');
    this.path = end === -1 ? this.url : this.url.slice(0, end);
    this.headers = transport.headers;
    const given = this.headers['x-request-id'];
    this.id = given !== undefined && requestIdPattern.test(given) ? given : randomUUID();
  }

  get query(): URLSearchParams {
    this.#query ??= new URLSearchParams(this.url.slice(this.path.length));
    return this.#query;
  }

  get hostname(): string {
    const host = this.#transport.authority;
    return host.startsWith('[') ? host.slice(0, host.indexOf(']') + 1) : (host.split(':')[0] ?? '');
  }

  get ip(): string {
    const forwarded = this.headerValues('x-forwarded-for').join(',');
    return clientIp(this.#transport.remoteAddress, forwarded, this.#options.trustProxyHops);
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      const controller = new AbortController();
      this.#controller = controller;
      this.#transport.onClientGone(() => controller.abort());
    }
    return this.#controller.signal;
  }

  headerValues(name: string): readonly string[] {
    const { rawHeaders } = this.#transport;
    const values: string[] = [];
    for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
      if (rawHeaders[index]?.toLowerCase() === name) values.push(rawHeaders[index + 1] ?? '');
    }
    return values;
  }

  async body({ bytesMax, budget, form = false }: BodyOptions = {}): Promise<unknown> {
    const { limits } = this.#options;
    const bytes = await readBody(this.#startBody(), {
      ...limits,
      bytesMax: bytesMax ?? limits.bytesMax,
      budget: budget ?? limits.budget,
      ipKey: toIpKey(this.ip),
    });
    const type = this.headers['content-type'];
    return parseBody(bytes, { type, form, depthMax: limits.depthMax });
  }

  lines(options: Pick<LineLimits, 'bytesMax' | 'lineBytesMax'>): AsyncIterable<unknown> {
    return readLines(this.#startBody(), { ...this.#options.limits, ...options });
  }

  /** A body can be read once: what is left of it would be taken for an empty one. */
  #startBody(): Transport {
    if (this.#isBodyRead) throw new Error('Cannot read body: it has been read');
    this.#isBodyRead = true;
    refuseEncoded(this.headers['content-encoding']);
    this.#transport.sendContinue();
    return this.#transport;
  }
}

/** A compressed body could grow without a limit; nobody needs one here. Spec: RFC 9110 §15.5.16. */
function refuseEncoded(encoding: string | undefined): void {
  if (encoding === undefined || encoding.trim().toLowerCase() === 'identity') return;
  throw new Failure(
    'unsupported_media_type',
    'Cannot read body: content-encoding is not supported',
    {
      headers: { 'accept-encoding': 'identity' },
    },
  );
}
