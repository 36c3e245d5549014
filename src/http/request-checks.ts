import { Failure } from '../errors.js';
import { type HttpLimits, headerLinesMax } from './limits/limits.js';
import { methods } from './router.js';
import type { Transport } from './transport.js';

// Checks of a request before its route is looked up.

const authorityPattern = /^(\[[\da-f:.]{2,45}\]|[\w.~-]{1,255})(:\d{1,5})?$/i;

/** Throws `not_implemented` for a method that no route can have. Spec: RFC 9110 §9.1. */
export function refuseUnknownMethod({ method }: Transport): void {
  if (methods.includes(method)) return;
  const message = `Cannot use this method: the methods are ${methods.join(', ')}`;
  throw new Failure('not_implemented', message);
}

/**
 * Throws `invalid_request` for a malformed host, and for a path with characters other than printable ASCII
 * without space. The path `*` is valid only for OPTIONS.
 */
export function refuseMalformed({ method, url, authority }: Transport): void {
  const isHostValid = authority === undefined || authorityPattern.test(authority);
  const isPathValid = /^\/[\x21-\x7e]*$/.test(url) || (url === '*' && method === 'OPTIONS');
  if (!isPathValid || !isHostValid) {
    throw new Failure('invalid_request', 'Cannot read request: malformed path or host');
  }
}

/**
 * Throws `headers_too_large`. Node checks these limits too, but it checks lines only over HTTP/2, and
 * over HTTP/2 it checks bytes only after the client has acknowledged the settings.
 */
export function refuseLargeHeaders(
  { rawHeaders }: Transport,
  { headerListBytesMax }: HttpLimits,
): void {
  const bytes = rawHeaders.reduce((sum, text) => sum + text.length, 0);
  if (bytes <= headerListBytesMax && rawHeaders.length <= 2 * headerLinesMax) return;
  const limits = `${headerLinesMax} lines and ${headerListBytesMax} bytes`;
  const message = `Cannot read headers: over the limit of ${limits}`;
  throw new Failure('headers_too_large', message, { info: { headerLinesMax, headerListBytesMax } });
}
