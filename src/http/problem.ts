import { STATUS_CODES } from 'node:http';
import { Failure } from '../errors.js';
import { type CompleteReply, json } from './reply.js';

export interface ProblemContext {
  readonly requestId: string;
  readonly accept: string | undefined;
  /** The default `WWW-Authenticate` of a 401. */
  readonly challenge: string;
}

/**
 * Renders a failure: `{name, message, status, info}`, which existing clients read, and the members of a
 * problem document. Spec: RFC 9457 §3.
 */
export function toProblemReply(
  failure: Failure,
  { requestId, accept, challenge }: ProblemContext,
): CompleteReply {
  const { name, message, status, info } = failure;
  const headers: Record<string, string> = { 'cache-control': 'no-store', ...failure.headers };
  if (status === 401) headers['www-authenticate'] ??= challenge;
  if (status === 429 || status === 503) headers['retry-after'] ??= '1';
  if (acceptsProblem(accept)) headers['content-type'] = 'application/problem+json; charset=utf-8';
  const body = {
    name,
    message,
    status,
    ...(info === undefined ? {} : { info }),
    type: 'about:blank',
    title: STATUS_CODES[status],
    detail: message,
    instance: requestId,
  };
  return json(status, body, headers);
}

/** Returns the failure that clients see for a defect. Its details are only logged. */
export function internalFailure(): Failure {
  return new Failure('internal_server', 'Cannot answer: internal error');
}

/**
 * Whether `application/problem+json` is listed with a weight above 0; wildcards do not count.
 * Spec: RFC 9110 §12.5.1.
 */
function acceptsProblem(accept = ''): boolean {
  return accept.split(',').some((range) => {
    const [media, ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    const isRefused = parameters.some((parameter) => /^q=0(\.0*)?$/.test(parameter));
    return media === 'application/problem+json' && !isRefused;
  });
}
