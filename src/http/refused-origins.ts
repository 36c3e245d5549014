import type { WarningAggregator } from '../logging/warning-aggregator.js';
import type { Transport } from './transport.js';

/** Why no page of an origin may read a response. */
export type OriginRefusal = 'not in CORS_ORIGINS' | 'the path is for servers';

/** Whether a browser sent the request for a page of another origin than that of the request itself. */
export function isCrossOrigin({ headers, authority }: Transport, origin: string): boolean {
  const isSameHost = origin.replace(/^https?:\/\//, '') === authority?.toLowerCase();
  return headers['sec-fetch-site'] !== 'same-origin' && !isSameHost;
}

/** Warns that the pages of an origin cannot read responses. */
export function warnAboutOrigin(
  warnings: WarningAggregator,
  givenOrigin: string,
  reason: OriginRefusal,
): void {
  const phrase = 'origin refused';
  const origin = printableOrigin(givenOrigin);
  const subject = `${reason} ${origin}`;
  warnings.warn({ kind: phrase, subject, fields: { origin, reason }, phrase });
}

/** Returns an origin for the log: `(malformed)` unless it is `null`, or a scheme and a host up to 255 characters. */
function printableOrigin(origin: string): string {
  const isOrigin = /^[a-z][a-z\d+.-]{0,31}:\/\/[\w.~[\]:-]{1,255}$/i.test(origin);
  return isOrigin || origin === 'null' ? origin : '(malformed)';
}
