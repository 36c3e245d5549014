import { checkContent } from './content.js';
import type { FoundOperation, Operation, Parameter } from './document.js';
import type { Schemas } from './schemas.js';

/** A request as a client has sent it. */
export interface SentRequest {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, unknown>>;
  /** Empty if the request had no body; undefined if the body is not known. */
  readonly body?: string | undefined;
}

/** Headers that a request may have on any route: those of HTTP, of browsers and of proxies. */
const commonHeaders = [
  ...[
    'accept',
    'accept-encoding',
    'accept-language',
    'authorization',
    'cache-control',
    'connection',
  ],
  ...['content-length', 'content-type', 'cookie', 'expect', 'host', 'origin', 'pragma', 'referer'],
  ...['access-control-request-headers', 'access-control-request-method', 'sec-fetch-dest'],
  ...['sec-fetch-mode', 'sec-fetch-site', 'transfer-encoding', 'user-agent'],
  'x-forwarded-for',
];

/** Returns how an accepted request differs from the document; an empty array if it matches. */
export function checkRequest(
  schemas: Schemas,
  { operation, parameters }: FoundOperation,
  { url, headers, body }: SentRequest,
): string[] {
  const query = new URLSearchParams(url.split('?')[1] ?? '');
  return [
    ...findUnknownNames(parameters, query, headers),
    ...parameters.flatMap(({ name, in: place, required, schema }) => {
      if (place === 'path' || schema['type'] === 'object') return [];
      const value = place === 'query' ? query.get(name) : headers[name.toLowerCase()];
      if (value === null || value === undefined)
        return required === true ? [`${place} parameter ${name} is missing`] : [];
      const problems = schemas.findProblems(schema, toTyped(schema, value));
      return problems.map((problem) => `${place} parameter ${name}: ${problem}`);
    }),
    ...(body === undefined ? [] : checkBody(schemas, operation, headers['content-type'], body)),
  ];
}

/** Converts the text of a parameter to a number if the schema is of type integer; otherwise returns the text. */
function toTyped({ type }: Parameter['schema'], value: unknown): unknown {
  return type === 'integer' && /^-?\d+$/.test(String(value)) ? Number(value) : value;
}

/** Returns the undocumented names. A query parameter of type object allows all query parameters and headers. */
function findUnknownNames(
  parameters: readonly Parameter[],
  query: URLSearchParams,
  headers: SentRequest['headers'],
): string[] {
  const known = parameters.map(({ in: place, name }) =>
    place === 'header' ? `header ${name.toLowerCase()}` : `${place} parameter ${name}`,
  );
  if (parameters.some((one) => one.in === 'query' && one.schema['type'] === 'object')) return [];
  const names = Object.keys(headers).filter((name) => headers[name] !== undefined);
  const sent = [
    ...[...query.keys()].map((name) => `query parameter ${name}`),
    ...names
      .map((name) => name.toLowerCase())
      .filter((name) => !name.startsWith(':') && !commonHeaders.includes(name))
      .map((name) => `header ${name}`),
  ];
  return sent.filter((one) => !known.includes(one)).map((one) => `${one} is not documented`);
}

function checkBody(
  schemas: Schemas,
  { requestBody }: Operation,
  type: unknown,
  body: string,
): string[] {
  if (body === '') return requestBody?.required === true ? ['the body is missing'] : [];
  if (requestBody === undefined) return ['a body is not documented'];
  return checkContent(schemas, requestBody.content, type, body);
}
