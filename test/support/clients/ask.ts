import type { IncomingHttpHeaders } from 'node:http';
import { request } from 'node:https';
import type { TestContext } from 'node:test';
import { defaultHttpLimits } from '../../../src/http/limits/limits.js';
import type { Route } from '../../../src/http/router.js';
import { HttpServer } from '../../../src/http/server.js';
import { Repeats } from '../../../src/logging/warning-aggregator.js';
import { recordedLog, recordSecretsIn } from '../recording/record.js';
import { throwaway } from '../servers/certificate.js';

/** What a request brings; at most one body. */
export interface Asked {
  readonly bearer?: string;
  readonly json?: unknown;
  readonly form?: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** `{}` when there is none. */
  readonly body: Record<string, string>;
}

/** A server with these routes on a port of its own, and a way to ask it over HTTP/1.1. */
export async function askerFor(t: TestContext, routes: readonly Route[]) {
  const server = await HttpServer.listen({
    ...throwaway,
    host: '127.0.0.1',
    port: 0,
    routes,
    log: recordedLog,
    repeats: new Repeats({ log: recordedLog, clock: Date.now }),
    challenge: 'Bearer realm="test"',
    corsOrigins: [],
    isStrict: true,
    trustProxyHops: 0,
    limits: defaultHttpLimits,
  });
  t.after(() => server.close(1000));

  return (method: string, path: string, { bearer, json, form }: Asked): Promise<Answer> => {
    const headers: Record<string, string> = {};
    if (bearer !== undefined) headers['authorization'] = `Bearer ${bearer}`;
    if (json !== undefined) headers['content-type'] = 'application/json';
    if (form !== undefined) headers['content-type'] = 'application/x-www-form-urlencoded';
    const body = json === undefined ? form : JSON.stringify(json);
    recordSecretsIn(json);
    const { port } = server;
    const options = { method, path, headers, port, host: '127.0.0.1', ca: throwaway.cert };
    return new Promise((resolve, reject) => {
      request({ ...options, agent: false }, (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () => {
          const { statusCode: status = 0, headers: given } = response;
          const answer = text === '' ? {} : JSON.parse(text);
          recordSecretsIn(answer);
          resolve({ status, headers: given, body: answer });
        });
        response.on('error', reject);
      })
        .on('error', reject)
        .end(body);
    });
  };
}
