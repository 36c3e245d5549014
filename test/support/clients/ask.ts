import { request } from 'node:https';
import { ca } from '../servers/certificate.js';
import {
  type Answer,
  type Asked,
  type Protocol,
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
  asked: Asked = {},
): Promise<Answer> {
  return (protocol === 'h2' ? askH2 : askHttp1)(port, method, path, asked);
}

async function askH2(port: number, method: string, path: string, asked: Asked): Promise<Answer> {
  const client = H2Client.open(`https://127.0.0.1:${port}`);
  try {
    return await client.ask(method, path, asked);
  } finally {
    client.session.close();
  }
}

function askHttp1(port: number, method: string, path: string, asked: Asked): Promise<Answer> {
  const to = { host: '127.0.0.1', port, ca, agent: false };
  return new Promise((resolve, reject) => {
    const sent = request({ ...to, method, path, headers: toHeaders(asked) }, (response) => {
      const { statusCode: status = 0, headers } = response;
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        resolve(toAnswer(status, headers as Record<string, string>, text));
      });
    });
    sent.on('error', reject);
    sendBody(sent, toBody(asked));
  });
}
