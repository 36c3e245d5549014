import type { WarningAggregator } from '../logging/warning-aggregator.js';
import type { Transport } from './transport.js';

/** Reason why the pages of an origin may not read a response. */
export type OriginRefusal = 'not in CORS_ORIGINS' | 'the path is for servers';

/** Whether the request comes from a page of another origin than the origin of the requested URL. */
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
  const origin = toPrintableOrigin(givenOrigin);
  const subject = `${reason} ${origin}`;
  warnings.warn({ kind: phrase, subject, fields: { origin, reason }, phrase });
}

/** Returns an origin for the log: `(malformed)` unless it is `null`, or a scheme and a host of up to 255 characters. */
function toPrintableOrigin(origin: string): string {
  const isOrigin = /^[a-z][a-z\d+.-]{0,31}:\/\/[\w.~[\]:-]{1,255}$/i.test(origin);
  return isOrigin || origin === 'null' ? origin : '(malformed)';
}
