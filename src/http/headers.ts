import type { Headers } from './reply.js';

/**
 * What every answer of an API says to browsers: believe the content type, embed and run nothing, and
 * tell no other site the URL, which may hold a stream token.
 */
const securityHeaders: Headers = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
};

/** Keep to HTTPS on this host, for a year; what its subdomains do is not ours to say. Spec: RFC 6797. */
const hstsHeaders: Headers = { 'strict-transport-security': 'max-age=31536000' };

const allowedHeaders =
  'authorization, content-type, last-event-id, cache-control, idempotency-key, x-request-id';
const exposedHeaders = 'x-request-id, retry-after, www-authenticate';

/** The headers that do not depend on what is answered, computed once. */
export class StandardHeaders {
  readonly #base: Headers;
  readonly #byOrigin: ReadonlyMap<string, Headers>;

  /**
   * `origins`: pages of these may call Herald; none by default. Spec: Fetch §3.3 (CORS).
   * `isStrict`: browsers shall use nothing but HTTPS here. Not for development: it would hold for
   * every other server on `localhost`, too, for a year.
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
          'access-control-expose-headers': exposedHeaders,
        },
      ]),
    );
  }

  forOrigin(origin: string | undefined): Headers {
    return (origin === undefined ? undefined : this.#byOrigin.get(origin)) ?? this.#base;
  }

  /** What a preflight asks for; nothing for an origin that is not listed. */
  preflight(origin: string | undefined, methods: readonly string[]): Headers {
    if (origin === undefined || !this.#byOrigin.has(origin)) return {};
    return {
      'access-control-allow-methods': methods.join(', '),
      'access-control-allow-headers': allowedHeaders,
      'access-control-max-age': '600',
    };
  }
}
