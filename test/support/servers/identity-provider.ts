import { once } from 'node:events';
import { createServer } from 'node:https';
import type { TestContext } from 'node:test';
import { exportJWK, generateKeyPair, type JWK } from 'jose';
import { Provider } from 'oidc-provider';
import { freePort } from '../free-port.js';
import { testCertificate } from './certificate.js';

/**
 * Starts an OpenID Connect provider with one key, closed after the test; returns its issuer. The client
 * `page|7` gets access tokens for the resource `audience` by its secret.
 */
export async function startProvider(
  t: TestContext,
  { audience, secret, alg = 'RS256' }: { audience: string; secret: string; alg?: string },
): Promise<string> {
  const port = await freePort();
  const issuer = `https://localhost:${port}`;
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  const jwk: JWK = { ...(await exportJWK(privateKey)), alg, use: 'sig' };
  const resourceServer = {
    ...{ audience, scope: 'listen', accessTokenFormat: 'jwt' },
    jwt: { sign: { alg } },
  };
  const provider = new Provider(issuer, {
    jwks: { keys: [jwk] },
    clients: [
      {
        ...{ client_id: 'page|7', client_secret: secret, grant_types: ['client_credentials'] },
        ...{ redirect_uris: [], response_types: [] },
        token_endpoint_auth_method: 'client_secret_post',
        id_token_signed_response_alg: alg,
      },
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: { enabled: true, getResourceServerInfo: () => resourceServer },
    },
  });
  const server = createServer(testCertificate, provider.callback());
  await once(server.listen(port), 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return issuer;
}
