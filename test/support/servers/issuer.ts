import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { TestContext } from 'node:test';
import { exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose';
import { freePort } from '../free-port.js';
import { recordSecret } from '../recording/record.js';
import { ca, testCertificate } from './certificate.js';

/** A key pair of an issuer. */
export interface IssuerKeyPair {
  /** The public key, with `kid` and `alg`. */
  readonly jwk: JWK;
  /** Signs a token. `header` adds to `alg` and `kid`, or replaces them. */
  sign(claims: JWTPayload, header?: Readonly<Record<string, unknown>>): Promise<string>;
}

export async function generateIssuerKey(kid: string, alg = 'ES256'): Promise<IssuerKeyPair> {
  const { publicKey, privateKey } = await generateKeyPair(alg);
  return {
    jwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' },
    sign: async (claims, header = {}) => {
      const jwt = new SignJWT(claims).setProtectedHeader({ alg, kid, ...header });
      const token = await jwt.sign(privateKey);
      recordSecret(token);
      return token;
    },
  };
}

type Respond = (response: ServerResponse) => void;

/**
 * An HTTPS server for a JWKS, with the certificate of the tests (`ca`). Responds with 404 until `respondWith` sets
 * another response. Closed after the test.
 */
export class JwksServer {
  /** The number of requests so far. */
  requests = 0;
  readonly ca = ca;
  readonly #port: number;
  #server: Server | undefined;
  #respond: Respond = (response) => response.writeHead(404).end();

  private constructor(port: number) {
    this.#port = port;
  }

  static async start(t: TestContext): Promise<JwksServer> {
    const server = new JwksServer(await freePort());
    await server.startAgain();
    t.after(() => server.stop());
    return server;
  }

  get url(): string {
    return `https://localhost:${this.#port}/jwks.json`;
  }

  respondWith(respond: Respond): void {
    this.#respond = respond;
  }

  respondWithText(text: string): void {
    this.respondWith((response) => response.end(text));
  }

  respondWithKeys(...keys: readonly IssuerKeyPair[]): void {
    this.respondWithText(JSON.stringify({ keys: keys.map(({ jwk }) => jwk) }));
  }

  /** Resets open connections and refuses new ones. */
  async stop(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  }

  /** Listens on the same port as before. */
  async startAgain(): Promise<void> {
    this.#server = createServer(testCertificate, (_request, response) => {
      this.requests += 1;
      this.#respond(response);
    });
    await once(this.#server.listen(this.#port), 'listening');
  }
}
