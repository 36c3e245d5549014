import { request as requestPlain } from 'node:http';
import { request as requestSecure } from 'node:https';
import { observeH1 } from '../openapi/observer.js';
import { ca } from '../servers/certificate.js';
import { scheme, usesTls } from '../servers/scheme.js';
import { withDeadline } from '../with-deadline.js';
import {
  type Answer,
  type Protocol,
  type RequestParts,
  sendBody,
  toAnswer,
  toBody,
  toHeaders,
} from './exchange.js';
import { H2Client } from './h2-client.js';

/** Sends one request on a new connection. Rejects when the response is incomplete. */
export function ask(
  protocol: Protocol,
  port: number,
  method: string,
  path: string,
  parts: RequestParts = {},
): Promise<Answer> {
  return (protocol === 'h2' ? askH2 : askHttp1)(port, method, path, parts);
}

async function askH2(
  port: number,
  method: string,
  path: string,
  parts: RequestParts,
): Promise<Answer> {
  const client = H2Client.open(`${scheme}://127.0.0.1:${port}`);
  try {
    return await client.ask(method, path, parts);
  } finally {
    client.session.close();
  }
}

function askHttp1(
  port: number,
  method: string,
  path: string,
  parts: RequestParts,
): Promise<Answer> {
  const target = { host: '127.0.0.1', port, ca, agent: false };
  const request = usesTls ? requestSecure : requestPlain;
  const answer = new Promise<Answer>((resolve, reject) => {
    const headers = toHeaders(parts);
    const body = toBody(parts);
    const outgoing = request({ ...target, method, path, headers }, (response) => {
      const { statusCode: status = 0, headers: received } = response;
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        resolve(toAnswer(status, received as Record<string, string>, text));
      });
    });
    observeH1(port, { method, path, headers, body }, outgoing);
    outgoing.on('error', reject);
    sendBody(outgoing, body);
  });
  return withDeadline(answer, `a response to ${method} ${path} over HTTP/1.1`);
}
