import type { Readable } from 'node:stream';
import { Failure } from '../../errors.js';
import { ByteAccumulator } from '../../util/byte-accumulator.js';
import type { Transport } from '../transport.js';
import { type ParsedJson, parseJsonBody } from './body.js';

export interface LineLimits {
  /** Maximum size of the whole body. */
  readonly bytesMax: number;
  readonly lineBytesMax: number;
  readonly depthMax: number;
  /** Maximum time between two reads of data, not for the whole body. */
  readonly deadlineMs: number;
  /** When it aborts, a read throws the reason of the signal instead of waiting. */
  readonly signal?: AbortSignal;
}

type BodyTransport = Pick<Transport, 'input' | 'isBodyTruncated' | 'headers' | 'sendContinue'>;

const newline = 10;

/**
 * Yields the value and the source text of each line of an NDJSON body. Reads at the pace of the consumer, so
 * backpressure reaches the client. Blank lines are skipped; the last line needs no line end.
 *
 * Throws `unsupported_media_type`, `payload_too_large`, `request_timeout`, the reason of an aborted
 * `signal`, and `invalid_request` for a line that is not UTF-8, not JSON or nested too deeply, and for a
 * truncated body, whose last line is not yielded. For an error in a line, the message has the line number,
 * which counts from 1 and includes blank lines, and `info.index` is the index of the value, from 0.
 *
 * Spec: NDJSON 1.0.
 */
export async function* readLines(
  transport: BodyTransport,
  limits: LineLimits,
): AsyncGenerator<ParsedJson> {
  const [media = ''] = (transport.headers['content-type'] ?? '').toLowerCase().split(';');
  if (media.trim() !== 'application/x-ndjson') {
    const message = 'Cannot read body: its content-type is not application/x-ndjson';
    throw new Failure('unsupported_media_type', message);
  }
  let index = 0;
  let lineNumber = 1;
  /** The received part of an incomplete line. */
  const partialLine = new ByteAccumulator();
  const checkLineLength = (part: Buffer) => {
    const isTooLong = partialLine.length + part.length > limits.lineBytesMax;
    if (isTooLong) throw tooLarge(`line ${lineNumber}`, limits.lineBytesMax, { index });
  };
  const parse = (part: Buffer): ParsedJson | undefined => {
    checkLineLength(part);
    const position = { index, lineNumber };
    if (partialLine.length === 0) return parseLine(part, limits.depthMax, position);
    partialLine.append(part);
    return parseLine(partialLine.take(), limits.depthMax, position);
  };
  for await (const chunk of readChunks(transport, limits)) {
    let start = 0;
    for (let end = chunk.indexOf(newline); end !== -1; end = chunk.indexOf(newline, start)) {
      const value = parse(chunk.subarray(start, end));
      start = end + 1;
      lineNumber += 1;
      if (value === undefined) continue;
      yield value;
      index += 1;
    }
    const remainder = chunk.subarray(start);
    checkLineLength(remainder);
    partialLine.append(remainder);
  }
  const last = parse(Buffer.alloc(0));
  if (last !== undefined) yield last;
}

/**
 * Yields the bytes as they arrive and enforces the limits. Reads only when the next chunk is
 * requested.
 */
async function* readChunks(transport: BodyTransport, limits: LineLimits): AsyncGenerator<Buffer> {
  const { input, headers } = transport;
  const { bytesMax, deadlineMs: idleTimeoutMs, signal } = limits;
  const declared = Number(headers['content-length'] ?? Number.NaN);
  if (declared > bytesMax) throw tooLarge('the body', bytesMax);
  transport.sendContinue();
  let length = 0;
  while (!input.readableEnded && !input.destroyed) {
    signal?.throwIfAborted();
    const chunk: Buffer | null = input.read();
    if (chunk === null) {
      await waitForInput(input, idleTimeoutMs, signal);
      continue;
    }
    length += chunk.length;
    if (length > bytesMax) throw tooLarge('the body', bytesMax);
    yield chunk;
  }
  const isShort = !Number.isNaN(declared) && declared !== length;
  if (transport.isBodyTruncated || isShort || !input.readableEnded) {
    throw new Failure('invalid_request', 'Cannot read body: it is incomplete');
  }
}

/** Settles when there may be more to read, or the input has ended. */
function waitForInput(
  input: Readable,
  idleTimeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const names = ['readable', 'end', 'close', 'error'];
  return new Promise((resolve, reject) => {
    const settle = (failure?: Failure) => {
      clearTimeout(timer);
      for (const name of names) input.off(name, wake);
      signal?.removeEventListener('abort', wake);
      if (failure === undefined) resolve();
      else reject(failure);
    };
    const wake = () => settle();
    const timer = setTimeout(() => {
      const message = `Cannot read body: no data received within ${idleTimeoutMs} ms`;
      settle(new Failure('request_timeout', message));
    }, idleTimeoutMs);
    for (const name of names) input.on(name, wake);
    signal?.addEventListener('abort', wake);
    if (input.readableEnded || input.destroyed) wake();
  });
}

function isBlank(line: Buffer): boolean {
  return line.every((byte) => byte === 13 || byte === 32 || byte === 9);
}

/** Returns undefined for a blank line. */
function parseLine(
  line: Buffer,
  depthMax: number,
  { index, lineNumber }: { readonly index: number; readonly lineNumber: number },
): ParsedJson | undefined {
  if (isBlank(line)) return undefined;
  try {
    return parseJsonBody(line, { type: 'application/json', depthMax });
  } catch (cause) {
    if (!(cause instanceof Failure)) throw cause;
    const message = `${cause.message} (line ${lineNumber})`;
    throw new Failure(cause.name, message, { info: { index }, cause });
  }
}

function tooLarge(what: string, bytesMax: number, info: object = {}): Failure {
  const message = `Cannot read body: ${what} is over the limit of ${bytesMax} bytes`;
  return new Failure('payload_too_large', message, { info: { bytesMax, ...info } });
}
