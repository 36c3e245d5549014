import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { loadConfig } from '../src/config/config.js';
import { TrustedIssuers } from '../src/identity/issuers/trusted-issuers.js';
import { WarningAggregator } from '../src/logging/warning-aggregator.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { recordedLog, recordSecret } from './support/recording/record.js';
import { waitForLogLine } from './support/recording/wait-for-log.js';
import { ca } from './support/servers/certificate.js';
import { startProvider } from './support/servers/identity-provider.js';
import { generateIssuerKey, JwksServer } from './support/servers/issuer.js';
import { tempFolder } from './support/servers/process.js';
import { startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

/** Writes a file of one trusted issuer; returns its path. */
function writeIssuersFile(t: TestContext, issuer: object): string {
  const folder = tempFolder(t);
  const [file, caFile] = [join(folder, 'issuers.json'), join(folder, 'ca.pem')];
  writeFileSync(caFile, ca);
  const defaults = { audience: 'herald', algorithms: ['ES256'], userPrefix: 'id:', caFile };
  writeFileSync(file, JSON.stringify([{ ...defaults, ...issuer }]));
  return file;
}

test('Herald starts while a JWKS is unavailable, and fetches it when it is available again', async (t) => {
  const server = await JwksServer.start(t);
  await server.stop();
  const lines: Record<string, unknown>[] = [];
  let elapsedMs = 0;
  const system = await startSystem(t, {
    log: collectingLog(lines),
    monotonicClock: () => performance.now() + elapsedMs,
    env: { TRUSTED_ISSUERS_FILE: writeIssuersFile(t, { issuer: 'shop', jwksUrl: server.url }) },
  });
  const { key } = await system.runAdmin(({ apiKeys }) =>
    apiKeys.create({ name: 'prometheus', scopes: ['metrics'] }),
  );
  recordSecret(key);
  const client = await system.connect();
  const hasMetric = async (sample: string) => {
    const answer = await client.ask('GET', '/metrics', { bearer: key });
    return answer.text.includes(`herald_jwks_fetches_total{${sample}}`);
  };
  const phrase = 'keys of a trusted issuer cannot be fetched';
  await waitForLogLine(lines, { phrase, issuer: 'shop', detail: 'ECONNREFUSED', level: 'warn' });
  assert.ok(await hasMetric('issuer="1",outcome="unreachable"'));

  server.respondWithKeys(await generateIssuerKey('any'));
  await server.startAgain();
  elapsedMs = 30_000;

  await until(() => hasMetric('issuer="1",outcome="ok"'));
});

/** Starts an OpenID Connect provider that gives a client JWTs for the audience `herald`. */
async function startHeraldProvider(t: TestContext) {
  const secret = 'the-secret-of-this-test-client';
  const issuer = await startProvider(t, { audience: 'herald', secret, alg: 'ES256' });
  const grant = new URLSearchParams({
    ...{ grant_type: 'client_credentials', client_id: 'page|7', client_secret: secret },
    ...{ resource: 'https://herald.example.com', scope: 'listen' },
  });
  /** Requests an access token. */
  async function requestToken(): Promise<string> {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    const outgoing = request(`${issuer}/token`, { method: 'POST', ca, headers, agent: false });
    const responding = once(outgoing.end(String(grant)), 'response');
    const [response] = await responding;
    const answer = await text(response);
    const { access_token: token } = JSON.parse(answer) as Record<string, string>;
    assert.ok(token !== undefined, answer);
    recordSecret(token);
    return token;
  }
  return { issuer, requestToken };
}

test('an access token of an OpenID Connect provider is verified', async (t) => {
  const { issuer, requestToken } = await startHeraldProvider(t);
  const file = writeIssuersFile(t, { issuer, jwksUrl: `${issuer}/jwks` });
  const { trustedIssuers, accessToken } = loadConfig({ TRUSTED_ISSUERS_FILE: file });
  const monotonicClock = () => performance.now();
  const trusted = await TrustedIssuers.open({
    ...trustedIssuers,
    clockToleranceMs: accessToken.clockToleranceMs,
    warnings: new WarningAggregator({ log: recordedLog, monotonicClock }),
    onFetched() {},
    ...{ wallClock: Date.now, monotonicClock },
  });
  t.after(() => trusted.close());
  const token = await requestToken();

  const user = await trusted.verify(token);

  assert.equal(trusted.isForeign(token), true);
  assert.deepEqual([user.userId, user.issuer], ['id:page|7', issuer]);
  assert.ok(user.expiresAt > Date.now());
  const forged = `${token.slice(0, -5)}AAAAA`;
  await assert.rejects(trusted.verify(forged), { name: 'invalid_token' });
});
