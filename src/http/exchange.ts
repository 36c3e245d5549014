import { randomUUID } from 'node:crypto';
import { Failure } from '../errors.js';
import {
  type BodyLimits,
  type ParsedJson,
  parseBody,
  parseJsonBody,
  readBody,
} from './body/body.js';
import type { BodyBudget } from './body/body-budget.js';
import { type LineLimits, readLines } from './body/body-lines.js';
import { type ClientAddress, findClientAddress } from './client-ip.js';
import { toIpKey } from './ip-key.js';
import type { Transport } from './transport.js';

/** A request as a handler sees it, independent of the protocol. */
export interface Exchange {
  /** The client's `x-request-id` if it is well-formed, otherwise a generated UUID. */
  readonly id: string;
  readonly protocol: 'h2' | 'http/1.1';
  readonly method: string;
  /** Path and query, as sent. */
  readonly url: string;
  readonly path: string;
  readonly query: URLSearchParams;
  /** Header values by lower-case name, without pseudo-headers. See `parseRawHeaders`. */
  readonly headers: Readonly<Record<string, string>>;
  /** Returns the values of a header, one per header line; `headers` has them joined. `name` is in lower case. */
  headerValues(name: string): readonly string[];
  /** The requested host, without port. Empty for an HTTP/1.0 request without a host. */
  readonly hostname: string;
  /** The client's address, from X-Forwarded-For as far as `trustProxyHops` allows. See `findClientAddress`. */
  readonly ip: string;
  /**
   * Aborts when the client disconnects or cancels the request before the response head is sent; never
   * afterwards.
   */
  readonly signal: AbortSignal;
  /**
   * Reads and parses the whole body: JSON or, with `isFormAllowed`, also form fields. Resolves with undefined
   * when the body is empty.
   *
   * Throws `invalid_request` for a body that is not UTF-8, malformed, nested too deeply or truncated;
   * `unsupported_media_type`; `payload_too_large`; `request_timeout`; `service_unavailable` when the
   * budget is exhausted. Only one of `body`, `jsonBody` and `lines` can be called, and only once.
   */
  body(options?: BodyOptions): Promise<unknown>;
  /** Reads and parses a JSON body like `body`, and also returns its text. */
  jsonBody(options?: Omit<BodyOptions, 'isFormAllowed'>): Promise<ParsedJson | undefined>;
  /**
   * Returns the value and the source text of each line of an NDJSON body (`application/x-ndjson`), read at the
   * pace of the consumer. A pause of up to `deadlineMs` ends neither the body nor its connection. Throws
   * the same failures as `readLines`.
   */
  lines(options: Omit<LineLimits, 'depthMax'>): AsyncIterable<ParsedJson>;
}

export interface BodyOptions {
  /** Limit of the declared and of the received length. Default: `bodyBytesMax` of the server. */
  readonly bytesMax?: number;
  /** The budget that the body counts towards. Default: the shared budget of the server. */
  readonly budget?: BodyBudget;
  /** Whether form fields are accepted, too. Default: false. */
  readonly isFormAllowed?: boolean;
}

export interface ExchangeOptions {
  readonly limits: Omit<BodyLimits, 'ipKey'>;
  readonly trustProxyHops: number;
}

const requestIdPattern = /^[\w-]{8,64}$/;

/**
 * An exchange over a transport. `query`, `signal` and `clientAddress` are created on first use; `hostname` is
 * computed on each use.
 */
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
  #clientAddress: ClientAddress | undefined;
  #isIpUsed = false;
  #isBodyRead = false;

  constructor(transport: Transport, options: ExchangeOptions) {
    this.#transport = transport;
    this.#options = options;
    this.protocol = transport.protocol;
    this.method = transport.method;
    this.url = transport.url;
    const queryStart = this.url.indexOf('?');
    this.path = queryStart === -1 ? this.url : this.url.slice(0, queryStart);
    this.headers = transport.headers;
    const clientId = this.headers['x-request-id'];
    this.id = clientId !== undefined && requestIdPattern.test(clientId) ? clientId : randomUUID();
  }

  get query(): URLSearchParams {
    this.#query ??= new URLSearchParams(this.url.slice(this.path.length));
    return this.#query;
  }

  get hostname(): string {
    const host = this.#transport.authority ?? '';
    return host.startsWith('[') ? host.slice(0, host.indexOf(']') + 1) : (host.split(':')[0] ?? '');
  }

  get ip(): string {
    this.#isIpUsed = true;
    return this.clientAddress.ip;
  }

  /** Whether the handler has used `ip`. */
  get isIpUsed(): boolean {
    return this.#isIpUsed;
  }

  get clientAddress(): ClientAddress {
    this.#clientAddress ??= findClientAddress(
      this.#transport.remoteAddress,
      () => this.headerValues('x-forwarded-for').join(','),
      this.#options.trustProxyHops,
    );
    return this.#clientAddress;
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

  async body({ isFormAllowed = false, ...options }: BodyOptions = {}): Promise<unknown> {
    const { depthMax } = this.#options.limits;
    const bytes = await this.#readBody(options);
    return parseBody(bytes, { type: this.headers['content-type'], isFormAllowed, depthMax });
  }

  async jsonBody(
    options: Omit<BodyOptions, 'isFormAllowed'> = {},
  ): Promise<ParsedJson | undefined> {
    const { depthMax } = this.#options.limits;
    const bytes = await this.#readBody(options);
    return parseJsonBody(bytes, { type: this.headers['content-type'], depthMax });
  }

  #readBody({ bytesMax, budget }: Omit<BodyOptions, 'isFormAllowed'>): Promise<Buffer> {
    const { limits } = this.#options;
    return readBody(this.#startBody(), {
      ...limits,
      bytesMax: bytesMax ?? limits.bytesMax,
      budget: budget ?? limits.budget,
      ipKey: toIpKey(this.clientAddress.ip),
    });
  }

  lines(options: Omit<LineLimits, 'depthMax'>): AsyncIterable<ParsedJson> {
    const { depthMax } = this.#options.limits;
    this.#transport.tolerateIdle();
    return readLines(this.#startBody(), { depthMax, ...options });
  }

  /** Throws when the body was read before, because a second read would return an empty body. */
  #startBody(): Transport {
    if (this.#isBodyRead) throw new Error('Cannot read body: it has already been read');
    this.#isBodyRead = true;
    refuseEncodedBody(this.headers['content-encoding']);
    return this.#transport;
  }
}

/**
 * Throws `unsupported_media_type` for a compressed body, which could expand without limit.
 * Spec: RFC 9110 §15.5.16.
 */
function refuseEncodedBody(encoding: string | undefined): void {
  if (encoding === undefined || encoding.trim().toLowerCase() === 'identity') return;
  throw new Failure(
    'unsupported_media_type',
    'Cannot read body: content-encoding is not supported',
    {
      headers: { 'accept-encoding': 'identity' },
    },
  );
}
