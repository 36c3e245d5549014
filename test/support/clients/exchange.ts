import type { OutgoingHttpHeaders } from 'node:http';
import { Readable, type Writable } from 'node:stream';
import { recordSecretsIn } from '../recording/record.js';

export type Protocol = 'h2' | 'http/1.1';
export const protocols = ['h2', 'http/1.1'] as const;

/** The optional parts of a request; at most one of `json`, `form` and `body` is set. */
export interface RequestParts {
  readonly bearer?: string;
  /** A list is sent as one field per value. */
  readonly headers?: Readonly<Record<string, string | string[] | number | undefined>>;
  /** Sent as JSON. */
  readonly json?: unknown;
  /** Sent as form data; already URL-encoded. */
  readonly form?: string;
  /** Sent unchanged. */
  readonly body?: string | Buffer | Readable;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
  /** The text parsed as JSON; `{}` when it is not JSON. */
  readonly body: Readonly<Record<string, unknown>>;
}

/** Returns the header fields of a request. */
export function toHeaders({ bearer, headers, json, form }: RequestParts): OutgoingHttpHeaders {
  return {
    ...(json !== undefined && { 'content-type': 'application/json' }),
    ...(form !== undefined && { 'content-type': 'application/x-www-form-urlencoded' }),
    ...(bearer !== undefined && { authorization: `Bearer ${bearer}` }),
    ...headers,
  } as OutgoingHttpHeaders; // Node accepts a list for any field; its types do not.
}

/** Returns the body of a request; undefined when it has none. */
export function toBody({ json, form, body }: RequestParts): string | Buffer | Readable | undefined {
  recordSecretsIn(json);
  return json === undefined ? (form ?? body) : JSON.stringify(json);
}

/** Sends a body and ends the request. */
export function sendBody(request: Writable, body: string | Buffer | Readable | undefined): void {
  if (body instanceof Readable) body.pipe(request);
  else request.end(body);
}

export function toAnswer(status: number, headers: Answer['headers'], text: string): Answer {
  const isJson = headers['content-type']?.includes('json') === true && text !== '';
  const body = isJson ? JSON.parse(text) : {};
  recordSecretsIn(body);
  return { status, headers, text, body };
}
