import type { RequestHead } from './h2-client.js';

export interface Answered {
  readonly text: string;
  readonly micros: number;
}

/** A connection that takes a request and gives its answer. */
export interface Sender {
  send(head: RequestHead, body?: Buffer): Promise<Answered>;
  close(): void;
}
