import { Failure } from '../../errors.js';
import { ByteAccumulator } from '../../util/byte-accumulator.js';
import type { Transport } from '../transport.js';
import { type BodyBudget, budgetExhausted } from './body-budget.js';

export interface BodyLimits {
  readonly bytesMax: number;
  readonly depthMax: number;
  /** Time limit for the whole body. */
  readonly deadlineMs: number;
  /** Shared with other bodies. */
  readonly budget: BodyBudget;
  /** The IP key of the client (`toIpKey`), for the budget. */
  readonly ipKey: string;
}

/**
 * Reads the whole body. Rejects with a Failure: `payload_too_large` as soon as the limit is exceeded,
 * `request_timeout`, `service_unavailable` when the budget is exhausted, `invalid_request` for a
 * truncated body. Node ends an aborted HTTP/2 stream as if it were complete, so a body is also checked for
 * truncation.
 */
export function readBody(
  transport: Pick<Transport, 'input' | 'isBodyTruncated' | 'headers' | 'sendContinue'>,
  { bytesMax, deadlineMs, budget, ipKey }: BodyLimits,
): Promise<Buffer> {
  const { input, headers } = transport;
  const declared = Number(headers['content-length'] ?? Number.NaN);
  if (declared > bytesMax) return Promise.reject(tooLarge(bytesMax));
  return new Promise((resolve, reject) => {
    const accumulator = new ByteAccumulator();
    let reservedBytes = 0;
    const tryReserve = (bytes: number): boolean => {
      if (bytes <= reservedBytes) return true;
      if (!budget.tryAcquire(bytes - reservedBytes, ipKey)) return false;
      reservedBytes = bytes;
      return true;
    };
    if (budget.reservesDeclaredLength && declared > 0 && !tryReserve(declared))
      return reject(budgetExhausted());
    const settle = (outcome: Buffer | Failure) => {
      clearTimeout(deadline);
      budget.release(reservedBytes, ipKey);
      input.off('data', onData).off('end', onEnd).off('close', onEnd).off('error', rejectTruncated);
      if (outcome instanceof Failure) reject(outcome);
      else resolve(outcome);
    };
    const deadline = setTimeout(() => {
      settle(
        new Failure('request_timeout', `Cannot read body: did not arrive within ${deadlineMs} ms`),
      );
    }, deadlineMs);
    const onData = (chunk: Buffer) => {
      const length = accumulator.length + chunk.length;
      if (length > bytesMax) settle(tooLarge(bytesMax));
      else if (!tryReserve(length)) settle(budgetExhausted());
      else accumulator.append(chunk);
    };
    const rejectTruncated = () =>
      settle(new Failure('invalid_request', 'Cannot read body: it is incomplete'));
    const onEnd = () => {
      const isShort = !Number.isNaN(declared) && declared !== accumulator.length;
      if (transport.isBodyTruncated || isShort || !input.readableEnded) rejectTruncated();
      else settle(accumulator.take());
    };
    if (transport.isBodyTruncated || input.destroyed) return rejectTruncated();
    // An empty HTTP/2 body can have ended before it is read.
    if (input.readableEnded) return onEnd();
    transport.sendContinue();
    input.on('data', onData).on('end', onEnd).on('close', onEnd).on('error', rejectTruncated);
  });
}

export interface BodyFormat {
  readonly type: string | undefined;
  /** Whether form fields are accepted, too. */
  readonly isFormAllowed: boolean;
  readonly depthMax: number;
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false });

/**
 * Parses JSON or, with `isFormAllowed`, also form fields. Returns undefined for an empty body. Throws
 * `unsupported_media_type`, and `invalid_request` for a body that is not UTF-8, malformed or nested too
 * deeply.
 */
export function parseBody(bytes: Buffer, { type, isFormAllowed, depthMax }: BodyFormat): unknown {
  if (bytes.length === 0) return undefined;
  const isForm = checkType(type, isFormAllowed);
  return isForm ? parseForm(decodeUtf8(bytes)) : parseJson(decodeUtf8(bytes), depthMax);
}

/** A JSON value and its text. The text keeps the digits of large numbers, which parsing rounds. */
export interface ParsedJson {
  readonly value: unknown;
  readonly text: string;
}

/** Parses JSON. Returns undefined for an empty body. Throws the same failures as `parseBody`. */
export function parseJsonBody(
  bytes: Buffer,
  { type, depthMax }: Omit<BodyFormat, 'isFormAllowed'>,
): ParsedJson | undefined {
  if (bytes.length === 0) return undefined;
  checkType(type, false);
  const text = decodeUtf8(bytes);
  return { value: parseJson(text, depthMax), text };
}

/**
 * Returns true for form fields and false for JSON. Throws `unsupported_media_type` for any other type, for
 * a charset other than UTF-8, and for form fields unless `isFormAllowed` is true.
 */
function checkType(type: string | undefined, isFormAllowed: boolean): boolean {
  const [media = '', ...parameters] = (type ?? '').toLowerCase().split(';');
  const isUtf8 = parameters.every((parameter) => !/^\s*charset=(?!"?utf-?8"?\s*$)/.test(parameter));
  const isJson = isUtf8 && media.trim() === 'application/json';
  const isForm = isUtf8 && isFormAllowed && media.trim() === 'application/x-www-form-urlencoded';
  if (!isJson && !isForm) {
    const accept = isFormAllowed
      ? 'application/json, application/x-www-form-urlencoded'
      : 'application/json';
    const message = `Cannot read body: its content-type is not ${accept.replace(',', ' or')}, UTF-8`;
    throw new Failure('unsupported_media_type', message, { headers: { 'accept-post': accept } });
  }
  return isForm;
}

function parseJson(text: string, depthMax: number): unknown {
  if (measureDepth(text) > depthMax) {
    throw new Failure('invalid_request', `Cannot read body: nested deeper than ${depthMax}`);
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Failure('invalid_request', 'Cannot read body: it is not JSON', { cause });
  }
}

/**
 * Parses form fields, strictly. Invalid UTF-8 is refused because replacing it by U+FFFD could make
 * different passwords equal. A duplicate field is refused because a proxy and Herald might each use a
 * different one.
 */
function parseForm(text: string): Record<string, string> {
  const fields = new Map<string, string>();
  for (const pair of text.split('&').filter((field) => field !== '')) {
    const [name = '', ...value] = pair.split('=').map(decodeFormText);
    if (fields.has(name)) {
      throw new Failure('invalid_request', 'Cannot read body: duplicate form field');
    }
    fields.set(name, value.join('='));
  }
  return Object.fromEntries(fields);
}

function decodeFormText(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch (cause) {
    const message = 'Cannot read body: a form field is not percent-encoded UTF-8';
    throw new Failure('invalid_request', message, { cause });
  }
}

function decodeUtf8(bytes: Buffer): string {
  try {
    return strictUtf8.decode(bytes);
  } catch (cause) {
    throw new Failure('invalid_request', 'Cannot read body: it is not UTF-8', { cause });
  }
}

/** Returns the nesting depth of brackets outside of strings, without parsing or recursion. */
function measureDepth(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (let index = 0; index < text.length; index += 1) {
    const char = text[index];
    if (char === '"') index = findStringEnd(text, index + 1);
    else if (char === '[' || char === '{') {
      depth += 1;
      if (depth > deepest) deepest = depth;
    } else if (char === ']' || char === '}') depth -= 1;
  }
  return deepest;
}

/**
 * Returns the index of the quote that ends the string starting at `start`, or the length of the text if
 * there is none. A quote after an odd number of `\` does not end the string.
 */
function findStringEnd(text: string, start: number): number {
  for (let searchStart = start; ; ) {
    const quote = text.indexOf('"', searchStart); // Much faster than a loop over the characters.
    if (quote === -1) return text.length;
    let escapes = 0;
    while (text[quote - 1 - escapes] === '\\') escapes += 1;
    if (escapes % 2 === 0) return quote;
    searchStart = quote + 1;
  }
}

function tooLarge(bytesMax: number): Failure {
  return new Failure('payload_too_large', `Cannot read body: over the limit of ${bytesMax} bytes`, {
    info: { bytesMax },
  });
}
