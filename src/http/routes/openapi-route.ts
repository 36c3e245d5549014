import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { empty } from '../reply.js';
import { type Route, route } from '../router.js';

/**
 * Returns the route `GET /openapi.json`, which needs no credentials and which pages of every origin may read.
 * The document is read once. Spec: RFC 9110 §13.1.2 (`If-None-Match`).
 */
export function openApiRoute(): Route {
  const body = readFileSync(new URL('../../openapi.json', import.meta.url));
  const etag = `"${createHash('sha256').update(body).digest('base64url')}"`;
  const headers = { 'cache-control': 'no-cache', etag, 'access-control-allow-origin': '*' };
  return route('GET', '/openapi.json', (exchange) => {
    if (isListed(exchange.headers['if-none-match'], etag)) return empty(304, headers);
    const type = { 'content-type': 'application/json; charset=utf-8' };
    return { status: 200, headers: { ...type, ...headers }, body };
  });
}

/** Whether the list contains the tag, weak or not, or is `*`. */
function isListed(list: string | undefined, etag: string): boolean {
  if (list === undefined) return false;
  const tags = list.split(',').map((tag) => tag.trim().replace(/^W\//, ''));
  return tags.includes(etag) || tags.includes('*');
}
