import { connect as connectH2 } from 'node:http2';
import { request } from 'node:https';
import type { TestContext } from 'node:test';
import { defaultHttpLimits, type HttpLimits } from '../../../src/http/limits/limits.js';
import type { Route } from '../../../src/http/router.js';
import { HttpServer, type HttpServerOptions } from '../../../src/http/server.js';
import { Repeats } from '../../../src/logging/warning-aggregator.js';
import { collectingLog } from './auth.js';
import { throwaway } from './certificate.js';

export type Protocol = 'h2' | 'http/1.1';
export const protocols = ['h2', 'http/1.1'] as const;

type Overrides = Partial<Omit<HttpServerOptions, 'limits'>> & {
  readonly limits?: Partial<HttpLimits>;
};

/** A server with these routes on a port of its own, closed after the test, and what it logs. */
export async function startHttp(
  t: TestContext,
  routes: readonly Route[],
  overrides: Overrides = {},
) {
  const lines: Record<string, unknown>[] = [];
  const log = collectingLog(lines);
  const server = await HttpServer.listen({
    ...throwaway,
    host: '127.0.0.1',
    port: 0,
    routes,
    log,
    repeats: new Repeats({ log, clock: Date.now }),
    challenge: 'Bearer realm="test"',
    corsOrigins: [],
    isStrict: true,
    trustProxyHops: 0,
    ...overrides,
    limits: { ...defaultHttpLimits, ...overrides.limits },
  });
  t.after(() => server.close(0));
  return { server, port: server.port, lines };
}

export interface Asked {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string | string[]>>;
  readonly body?: string | Buffer;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly text: string;
  /** The text as JSON; `{}` when there is none. */
  readonly body: Readonly<Record<string, unknown>>;
}

/** One request on a connection of its own. Rejects when the answer does not come whole. */
export function ask(protocol: Protocol, port: number, asked: Asked = {}): Promise<Answer> {
  return protocol === 'h2' ? askH2(port, asked) : askHttp1(port, asked);
}

function askHttp1(port: number, { method = 'GET', path = '/', headers = {}, body }: Asked) {
  return new Promise<Answer>((resolve, reject) => {
    const host = '127.0.0.1';
    const options = { method, path, headers, port, host, agent: false, ca: throwaway.cert };
    request(options, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const given = response.headers as Record<string, string | undefined>;
        resolve(answerOf(response.statusCode ?? 0, given, chunks));
      });
    })
      .on('error', reject)
      .end(body);
  });
}

function askH2(port: number, { method = 'GET', path = '/', headers = {}, body }: Asked) {
  return new Promise<Answer>((resolve, reject) => {
    const session = connectH2(`https://127.0.0.1:${port}`, { ca: throwaway.cert });
    session.on('error', reject);
    const stream = session.request(
      { ':method': method, ':path': path, ...headers },
      { endStream: body === undefined },
    );
    let head: Record<string, string | undefined> = {};
    const chunks: Buffer[] = [];
    stream.on('response', (given) => {
      head = given as unknown as Record<string, string | undefined>;
    });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', reject);
    stream.on('close', () => {
      session.close();
      const { ':status': status, ...rest } = head;
      const { rstCode } = stream;
      if (status === undefined || rstCode !== 0) reject(new Error(`reset with ${rstCode}`));
      else resolve(answerOf(Number(status), rest, chunks));
    });
    if (body !== undefined) stream.end(body);
  });
}

function answerOf(status: number, headers: Answer['headers'], chunks: readonly Buffer[]): Answer {
  const text = Buffer.concat(chunks).toString();
  const isJson = /json/.test(headers['content-type'] ?? '') && text !== '';
  return { status, headers, text, body: isJson ? JSON.parse(text) : {} };
}
