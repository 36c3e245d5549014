import type { Headers } from './reply.js';

/**
 * Security headers of every response: no MIME sniffing, no embedding, no scripts, and no `Referer`,
 * because the URL may contain a stream token.
 */
const securityHeaders: Headers = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
};

/** Restricts browsers to HTTPS on this host for a year, without `includeSubDomains`. Spec: RFC 6797. */
const hstsHeaders: Headers = { 'strict-transport-security': 'max-age=31536000' };

const allowedHeaders =
  'authorization, content-type, last-event-id, cache-control, idempotency-key, x-request-id';
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
          'access-control-expose-headers': exposedHeaders,
        },
      ]),
    );
  }

  /**
   * Returns the headers of a response to a page of this origin; without CORS headers if the
   * origin is not listed.
   */
  forOrigin(origin: string | undefined): Headers {
    return (origin === undefined ? undefined : this.#byOrigin.get(origin)) ?? this.#base;
  }

  /** Returns the headers of a preflight response; empty for an origin that is not listed. */
  preflight(origin: string | undefined, methods: readonly string[]): Headers {
    if (origin === undefined || !this.#byOrigin.has(origin)) return {};
    return {
      'access-control-allow-methods': methods.join(', '),
      'access-control-allow-headers': allowedHeaders,
      'access-control-max-age': '600',
    };
  }
}
