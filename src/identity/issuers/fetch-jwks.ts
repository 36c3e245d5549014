import type { IncomingMessage } from 'node:http';
import { get } from 'node:https';
import { ByteAccumulator } from '../../util/byte-accumulator.js';
import { decodeUtf8 } from '../../util/utf8.js';
import { version } from '../../version.js';

/** The outcome of a fetch, as the label of a metric. */
export type FetchOutcome = 'ok' | 'unreachable' | 'timeout' | 'status' | 'too_large' | 'invalid';

/** Thrown for a JWKS that could not be fetched. */
export class FetchError extends Error {
  override readonly name = 'FetchError';
  readonly outcome: Exclude<FetchOutcome, 'ok'>;

  /** `detail` is logged, so it must not contain any part of the response body. */
  constructor(outcome: Exclude<FetchOutcome, 'ok'>, detail: string) {
    super(detail);
    this.outcome = outcome;
  }
}

export interface FetchOptions {
  /** PEM certificates that are trusted instead of the certificates of Node. */
  readonly ca: string | undefined;
  readonly timeoutMs: number;
  /** Aborts the fetch. */
  readonly signal: AbortSignal;
}

export const jwksBytesMax = 256 * 1024;

/**
 * Fetches an `https:` URL and returns the body of the response: at most 256 KiB of UTF-8, with status 200.
 * Follows no redirects, because only the configured host is trusted. Throws a `FetchError`.
 */
export async function fetchText(
  url: string,
  { ca, timeoutMs, signal }: FetchOptions,
): Promise<string> {
  const controller = new AbortController();
  const abort = () => controller.abort();
  let isTimeout = false;
  const timer = setTimeout(() => {
    isTimeout = true;
    abort();
  }, timeoutMs).unref();
  signal.addEventListener('abort', abort, { once: true });
  try {
    if (signal.aborted) abort();
    return await readText(await request(url, ca, controller.signal));
  } catch (cause) {
    if (isTimeout) throw new FetchError('timeout', `no response within ${timeoutMs} ms`);
    if (cause instanceof FetchError) throw cause;
    throw new FetchError('unreachable', getErrorCode(cause));
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}

function request(
  url: string,
  ca: string | undefined,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const headers = { accept: 'application/json', 'user-agent': `herald/${version}` };
  const options = {
    ...(ca !== undefined && { ca }),
    rejectUnauthorized: true, // Otherwise NODE_TLS_REJECT_UNAUTHORIZED=0 would let anyone send keys.
    agent: false, // Closes the connection afterwards.
    headers,
    signal,
  };
  return new Promise((resolve, reject) => {
    get(url, options, resolve).on('error', reject);
  });
}

async function readText(response: IncomingMessage): Promise<string> {
  const { statusCode } = response;
  if (statusCode !== 200) {
    response.destroy();
    throw new FetchError('status', `status ${statusCode}`);
  }
  const body = new ByteAccumulator();
  for await (const chunk of response) {
    body.append(chunk); // Leaving the loop destroys the response.
    if (body.length > jwksBytesMax) {
      throw new FetchError('too_large', `more than ${jwksBytesMax} bytes`);
    }
  }
  const text = decodeUtf8(body.take());
  if (text === undefined) throw new FetchError('invalid', 'not UTF-8');
  return text;
}

function getErrorCode(cause: unknown): string {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
}
