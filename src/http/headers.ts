import type { Headers } from './reply.js';

/**
 * Security headers of every response: no MIME sniffing, no embedding, no scripts, and no `Referer`,
 * because the URL may contain a stream token. No response is stored, unless its handler says otherwise.
 */
const securityHeaders: Headers = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
  'cache-control': 'no-store',
};

/** Restricts browsers to HTTPS on this host for a year, without `includeSubDomains`. Spec: RFC 6797. */
const hstsHeaders: Headers = { 'strict-transport-security': 'max-age=31536000' };

/** Request headers that every preflight response allows, in addition to those that the preflight asks for. */
const allowedHeaders = [
  ...['authorization', 'content-type', 'last-event-id', 'cache-control', 'idempotency-key'],
  'x-request-id',
];
/** Longest `Access-Control-Request-Headers` that is read, in characters. */
export const requestedHeadersMax = 1024;
const exposedHeaders = 'x-request-id, retry-after, www-authenticate';

/** Provides the response headers that do not depend on the reply. They are computed once. */
export class StandardHeaders {
  readonly #base: Headers;
  readonly #byOrigin: ReadonlyMap<string, Headers>;

  /**
   * `origins`: pages of these origins may call Herald; empty disables CORS. Spec: Fetch §3.3 (CORS).
   * `isHstsEnabled`: browsers use only HTTPS with this host. Must be false in development, because it
   * would apply to every other server on `localhost`, too, for a year.
   */
  constructor({ origins, isHstsEnabled }: { origins: readonly string[]; isHstsEnabled: boolean }) {
    const isCorsEnabled = origins.length > 0;
    this.#base = {
      ...securityHeaders,
      ...(isHstsEnabled ? hstsHeaders : {}),
      'cross-origin-resource-policy': isCorsEnabled ? 'cross-origin' : 'same-origin',
      ...(isCorsEnabled ? { vary: 'origin' } : {}),
    };
    this.#byOrigin = new Map(
      origins.map((origin) => [
        origin,
        {
          ...this.#base,
          'access-control-allow-origin': origin,
          'access-control-allow-credentials': 'true',
          'access-control-expose-headers': exposedHeaders,
        },
      ]),
    );
  }

  /** Whether pages of this origin may call Herald. */
  isListed(origin: string): boolean {
    return this.#byOrigin.has(origin);
  }

  /** Returns headers that let pages of this origin read the response, but only if the origin is listed. */
  forOrigin(origin: string | undefined): Headers {
    return (origin === undefined ? undefined : this.#byOrigin.get(origin)) ?? this.#base;
  }
}

/**
 * Returns the headers of a preflight response to a page of a listed origin: it may send all headers that it
 * asks for (`requested`, the value of `Access-Control-Request-Headers`).
 */
export function preflightHeaders(
  methods: readonly string[],
  requested: string | undefined,
): Headers {
  const names = [...allowedHeaders, ...parseHeaderNames(requested)];
  return {
    'access-control-allow-methods': methods.join(', '),
    'access-control-allow-headers': [...new Set(names)].join(', '),
    'access-control-max-age': '600',
    vary: 'origin, access-control-request-headers',
  };
}

/**
 * Parses a list of header names; the result is in lower case. Omits entries that are not names, and `*`, which
 * would allow every header in requests without credentials. A list longer than `requestedHeadersMax` gives none.
 */
function parseHeaderNames(list = ''): readonly string[] {
  if (list.length > requestedHeadersMax) return [];
  const names = list.split(',').map((name) => name.trim().toLowerCase());
  return names.filter((name) => /^[\w!#$%&'+.^`|~-]+$/.test(name));
}
