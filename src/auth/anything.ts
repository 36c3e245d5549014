import { Failure } from '../errors.js';
import type { Exchange } from '../http/exchange.js';

type EchoedExchange = Pick<
  Exchange,
  'method' | 'url' | 'query' | 'headers' | 'ip' | 'hostname' | 'body'
>;

/**
 * Echoes a request in the shape of an Express request. Credentials are removed from the headers and
 * masked in the URL and the query. The body is echoed unchanged, including any credentials.
 */
export async function toEcho(exchange: EchoedExchange) {
  const { method, url, query, headers, ip, hostname } = exchange;
  return {
    method,
    url: maskUrl(url),
    params: {},
    query: toMaskedQuery(query),
    headers: withoutCredentials(headers),
    body: await readBodyOrEmpty(exchange),
    ip,
    protocol: 'https',
    hostname,
  };
}

const credentialHeaders = ['authorization', 'cookie', 'proxy-authorization'];

function withoutCredentials(headers: Readonly<Record<string, string>>): Record<string, string> {
  const kept = Object.entries(headers).filter(([name]) => !credentialHeaders.includes(name));
  return Object.fromEntries(kept);
}

/** Returns `{}` for a missing body or an unsupported media type, as Express does. */
async function readBodyOrEmpty(exchange: EchoedExchange): Promise<unknown> {
  try {
    return (await exchange.body({ isFormAllowed: true })) ?? {};
  } catch (cause) {
    if (cause instanceof Failure && cause.name === 'unsupported_media_type') return {};
    throw cause;
  }
}

/** Maps a parameter that occurs once to a string, a repeated one to an array. */
function toMaskedQuery(query: URLSearchParams): Record<string, string | string[]> {
  const names = [...new Set(query.keys())];
  return Object.fromEntries(
    names.map((name) => {
      const values = query.getAll(name).map((value) => (isSecret(name, value) ? mask : value));
      const [first = ''] = values;
      return [name, values.length === 1 ? first : values];
    }),
  );
}

/** Returns the URL as sent, with the values of secret parameters masked. */
function maskUrl(url: string): string {
  const queryStart = url.indexOf('?') + 1;
  if (queryStart === 0) return url;
  const parameters = url.slice(queryStart).split('&');
  const masked = parameters.map((parameter) => {
    const [[name, value] = ['', '']] = new URLSearchParams(parameter);
    return isSecret(name, value) ? `${parameter.split('=', 1)[0]}=${mask}` : parameter;
  });
  return url.slice(0, queryStart) + masked.join('&');
}

const mask = '***';
const secretName =
  /^(((access|refresh|stream)[_-]?)?token|secret|password|authorization|api[_-]?key)$/i;
const secretValue = /^(Bearer\s+)?(eyJ[\w-]*\.[\w-]+\.[\w-]*|hk_[0-9a-f]{16}_[\w-]+)$/i;

/** Whether the parameter has the name of a secret, or its value is a JWT or an API key. */
function isSecret(name: string, value: string): boolean {
  return secretName.test(name) || secretValue.test(value.trim());
}
