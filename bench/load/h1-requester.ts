import { Agent, request } from 'node:https';
import type { RequestHead } from './h2-client.js';
import { nowMicros } from './marked-events.js';
import type { Requester, TimedResponse } from './requester.js';

/** A `Requester` over HTTP/1.1 with Node's own client, for servers without HTTP/2. */
export class H1Requester implements Requester {
  readonly #port: number;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });

  constructor(port: number) {
    this.#port = port;
  }

  send({ method, path, headers = {} }: RequestHead, body?: Buffer): Promise<TimedResponse> {
    const sentAt = nowMicros();
    return new Promise((resolve, reject) => {
      const clientRequest = request(
        {
          ...{ host: '127.0.0.1', port: this.#port, agent: this.#agent, method, path },
          headers: { ...headers, 'content-length': String(body?.length ?? 0) },
        },
        (response) => {
          const chunks: string[] = [];
          response.setEncoding('latin1').on('data', (chunk: string) => chunks.push(chunk));
          response.once('end', () => {
            resolve({ text: chunks.join(''), durationMicros: nowMicros() - sentAt });
          });
        },
      );
      clientRequest.once('error', reject);
      clientRequest.end(body);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}
