/** The complete list of failures that clients may receive, with their HTTP status. */
const statusByName = {
  missing_required_parameter: 400,
  invalid_request: 400,
  bad_credentials: 401,
  invalid_token: 401,
  expired_token: 401,
  insufficient_scope: 403,
  user_not_allowed: 403,
  topic_not_allowed: 403,
  key_in_browser: 403,
  not_found: 404,
  method_not_allowed: 405,
  request_timeout: 408,
  conflict: 409,
  payload_too_large: 413,
  unsupported_media_type: 415,
  too_many_requests: 429,
  too_many_streams: 429,
  headers_too_large: 431,
  internal_server: 500,
  not_implemented: 501,
  service_unavailable: 503,
} as const;

export type FailureName = keyof typeof statusByName;

export interface FailureDetails {
  /** Machine-readable details, sent as `info`. Must not contain secrets or echo input. */
  readonly info?: Readonly<Record<string, unknown>>;
  /** Further response headers, lower-case: `www-authenticate`, `allow`, … */
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as `Retry-After`, rounded up to whole seconds, at least 1. */
  readonly retryAfterMs?: number;
  /** Names the state behind the failure, for readiness and metrics. Never sent. */
  readonly reason?: string;
  /** Only logged, never sent. */
  readonly cause?: unknown;
}

/**
 * An expected failure. Its name is in `statusByName`, and its message may be sent to the client.
 *
 * The message states what could not be done, then a colon, then the current state or what is
 * allowed. It has no full stop, no secrets and no text of a library. Any other error that is thrown
 * is a defect.
 */
export class Failure extends Error {
  override readonly name: FailureName;
  readonly status: number;
  readonly info: Readonly<Record<string, unknown>> | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly retryAfterMs: number | undefined;
  readonly reason: string | undefined;

  constructor(name: FailureName, message: string, details: FailureDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = name;
    this.status = statusByName[name];
    this.info = details.info;
    this.reason = details.reason;
    const { headers, retryAfterMs } = details;
    this.retryAfterMs = retryAfterMs;
    this.headers =
      retryAfterMs === undefined ? { ...headers } : { ...headers, ...retryAfter(retryAfterMs) };
  }
}

/** Returns the `retry-after` header for a wait in ms. Spec: RFC 9110 §10.2.3 (whole seconds). */
export function retryAfter(waitMs: number): { 'retry-after': string } {
  return { 'retry-after': String(Math.max(1, Math.ceil(waitMs / 1000))) };
}

/** Returns `too_many_requests` with the wait in `Retry-After` and `info.retryAfter`, in seconds. */
export function tooManyRequests(message: string, waitMs: number): Failure {
  const info = { retryAfter: Math.max(1, Math.ceil(waitMs / 1000)) };
  return new Failure('too_many_requests', message, { info, retryAfterMs: waitMs });
}
