import type { Readable } from 'node:stream';
import type { Headers, Sink } from './reply.js';

/** One request on one of the two protocols, and the way back. */
export interface Transport {
  readonly protocol: 'h2' | 'http/1.1';
  readonly method: string;
  readonly url: string;
  readonly authority: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Name, value, name, value, …, as they came. */
  readonly rawHeaders: readonly string[];
  readonly remoteAddress: string;
  readonly input: Readable;
  /** Whether the client gave up before the whole body had arrived. */
  readonly isBodyTruncated: boolean;
  /** Whether the client left before it was answered. */
  readonly isClientGone: boolean;
  /** Whether a head has been sent. */
  readonly isAnswered: boolean;
  /** Asks a client that waits for it to send its body. Spec: RFC 9110 §10.1.1 (100-continue). */
  sendContinue(): void;
  /** Calls the listener when, or if, the client has left before it was answered. */
  onClientGone(listener: () => void): void;
  /** The whole answer. Nothing happens when the client has gone. Throws for an unsound header. */
  send(status: number, headers: Headers, body: Buffer | undefined): void;
  /** The head of a streamed answer; undefined for HEAD, and when the client has gone. Throws too. */
  sendHead(status: number, headers: Headers): Sink | undefined;
  /** Breaks off, whatever has been sent. */
  destroy(): void;
}

/** Header lines by lower-case name; repeated ones joined with a comma, cookies with a semicolon. */
export function parseRawHeaders(rawHeaders: readonly string[]): Readonly<Record<string, string>> {
  const headers: Record<string, string> = Object.create(null);
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = (rawHeaders[index] ?? '').toLowerCase();
    if (name.startsWith(':')) continue;
    const value = rawHeaders[index + 1] ?? '';
    const before = headers[name];
    headers[name] =
      before === undefined ? value : before + (name === 'cookie' ? '; ' : ', ') + value;
  }
  return headers;
}
