import type { RequestHead } from './h2-client.js';

export interface TimedResponse {
  readonly text: string;
  readonly durationMicros: number;
}

/** Sends requests on one connection and returns their responses. */
export interface Requester {
  send(head: RequestHead, body?: Buffer): Promise<TimedResponse>;
  close(): void;
}
