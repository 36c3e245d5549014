import assert from 'node:assert/strict';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { withDatabase } from '../src/commands/database.js';
import { loadConfig } from '../src/config/config.js';
import { sql } from '../src/db/database.js';
import { H2Client, type Login } from './support/clients/h2-client.js';
import { findServer } from './support/databases/test-server.js';
import { recordedLog } from './support/recording/record.js';
import { type Cluster, clusterFor } from './support/servers/cluster.js';
import type { LogLine, ServerHandle } from './support/servers/launch.js';
import { tempFolder } from './support/servers/process.js';
import { type Env, type Username, usernames } from './support/servers/seed.js';
import { until } from './support/until.js';

/** The settings before the change and after each step that docs/security.md lists. */
interface Change {
  readonly before: Env;
  readonly acceptNew: Env;
  readonly swap: Env;
  readonly dropOld: Env;
}

const newSecret = () => `base64:${randomBytes(48).toString('base64')}`;
const newPepper = (version: number) => `${version}:${randomBytes(32).toString('base64')}`;

/** Creates settings that change the access token secret, which also signs refresh tokens, and the pepper. */
function createSecretAndPepperChange(): Change {
  const [oldSecret, secret] = [newSecret(), newSecret()];
  const [oldPepper, pepper] = [newPepper(1), newPepper(2)];
  const buildSettings = (
    current: string,
    other: string,
    currentPepper: string,
    otherPepper: string,
  ) => ({
    ACCESS_TOKEN_SECRET: current,
    ACCESS_TOKEN_PREVIOUS_SECRETS: other,
    PASSWORD_PEPPER: currentPepper,
    PASSWORD_PEPPER_PREVIOUS: otherPepper,
  });
  return {
    before: buildSettings(oldSecret, '', oldPepper, ''),
    acceptNew: buildSettings(oldSecret, secret, oldPepper, pepper),
    swap: buildSettings(secret, oldSecret, pepper, oldPepper),
    dropOld: buildSettings(secret, '', pepper, ''),
  };
}

/** Creates settings that change the key pair that signs access tokens. */
function createKeyPairChange(t: TestContext): Change {
  const folder = tempFolder(t);
  const writeKeyPair = (name: string) => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    const files = {
      privateKey: join(folder, `${name}.key`),
      publicKey: join(folder, `${name}.pub`),
    };
    writeFileSync(files.privateKey, privateKey.export({ type: 'pkcs8', format: 'pem' }));
    writeFileSync(files.publicKey, publicKey.export({ type: 'spki', format: 'pem' }));
    return files;
  };
  const [oldPair, pair] = [writeKeyPair('old'), writeKeyPair('new')];
  const buildSettings = (privateKey: string, otherPublicKey: string) => ({
    ACCESS_TOKEN_ALGORITHM: 'ES256',
    ACCESS_TOKEN_PRIVATE_KEY_FILE: privateKey,
    ACCESS_TOKEN_PREVIOUS_PUBLIC_KEYS_FILE: otherPublicKey,
  });
  return {
    before: buildSettings(oldPair.privateKey, ''),
    acceptNew: buildSettings(oldPair.privateKey, pair.publicKey),
    swap: buildSettings(pair.privateKey, oldPair.publicKey),
    dropOld: buildSettings(pair.privateKey, ''),
  };
}

/** Two processes on one database that are restarted with other settings, one after the other. */
class Pair {
  readonly lines: LogLine[] = [];
  readonly #cluster: Cluster;
  readonly #running: { process: ServerHandle; client: H2Client }[] = [];

  private constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  static async start(t: TestContext, cluster: Cluster, env: Env): Promise<Pair> {
    const pair = new Pair(cluster);
    t.after(() => pair.clients.map((client) => client.destroy()));
    for (const index of [0, 1]) pair.#running[index] = await pair.#launch(env);
    return pair;
  }

  get clients(): readonly H2Client[] {
    return this.#running.map(({ client }) => client);
  }

  async restart(index: number, env: Env): Promise<void> {
    const former = this.#running[index];
    this.#running[index] = await this.#launch(env);
    former?.client.destroy();
    assert.equal(await former?.process.end('SIGTERM'), 0);
  }

  async #launch(env: Env) {
    const onLine = (line: LogLine) => this.lines.push(line);
    const process = await this.#cluster.launch(env, { onLine });
    return { process, client: await H2Client.connect(process.url) };
  }
}

async function refresh(client: H2Client, { refreshToken }: Login): Promise<Login> {
  const json = { token: refreshToken };
  const { status, body, text } = await client.ask('POST', '/token', { json });
  assert.equal(status, 200, text);
  return body as unknown as Login;
}

/** Asserts that every process accepts the access token, and stream tokens that another process has minted with it. */
async function assertAccepted(clients: readonly H2Client[], { accessToken }: Login): Promise<void> {
  for (const [index, client] of clients.entries()) {
    const me = await client.ask('GET', '/me', { bearer: accessToken });
    assert.equal(me.status, 200, me.text);
    const { body } = await client.ask('POST', '/stream/token', { bearer: accessToken });
    const other = clients[1 - index] ?? client;
    const stream = await other.openStream(`/stream/live/${body['streamToken']}`);
    assert.equal(await stream.outcome(), 'open');
    stream.abort();
  }
}

/** Asserts that both processes accept the tokens of `session`, and of a new login at each process. */
async function assertWorking(clients: readonly H2Client[], session: Login): Promise<Login> {
  await assertAccepted(clients, session);
  let newest = session;
  for (const client of clients) {
    newest = await refresh(client, newest);
    await assertAccepted(clients, newest);
    await assertAccepted(clients, await client.login('ada'));
  }
  return newest;
}

function readPepperVersion(cluster: Cluster, username: Username): Promise<number | undefined> {
  return withDatabase(loadConfig(cluster.env), recordedLog, async (db) => {
    const rows = await db.query<{ version: number }>(
      sql`select pepper_version as version from users where username = ${username}`,
    );
    return rows[0]?.version;
  });
}

const hasPepperVersion = async (cluster: Cluster, username: Username, version: number) =>
  (await readPepperVersion(cluster, username)) === version;

/** Asserts that the processes refused nothing and counted no wrong password. */
function assertNothingRefused(lines: readonly LogLine[]): void {
  const refusals = /^(authn_login_(fail|lock|successafterfail)|authn_token_reuse|excess_)/;
  const refused = lines.filter(
    ({ event, msg, status }) =>
      refusals.test(String(event)) || (msg === 'request' && Number(status) >= 400),
  );
  assert.deepEqual(refused, []);
}

const server = await findServer('postgres');
const skip = typeof server === 'string' ? server : false;

test('a rolling change of the secret and the pepper logs nobody out and counts no failed login', {
  skip,
}, async (t) => {
  const change = createSecretAndPepperChange();
  const cluster = await clusterFor(t, 'postgres');
  const pair = await Pair.start(t, cluster, change.before);
  for (const username of usernames) {
    await pair.clients[0]?.login(username);
    await until(() => hasPepperVersion(cluster, username, 1)); // Rehashed in the background.
  }
  let session = await pair.clients[0]?.login('bob');
  assert.ok(session);

  for (const env of [change.acceptNew, change.swap, change.dropOld]) {
    for (const index of [0, 1]) {
      await pair.restart(index, env);
      session = await assertWorking(pair.clients, session);
      if (env !== change.swap || index === 1) continue;
      const [swapped, unswapped] = pair.clients;
      await swapped?.login('cyd');
      await until(() => hasPepperVersion(cluster, 'cyd', 2));
      await unswapped?.login('cyd'); // Must not rehash with the old pepper.
    }
    if (env === change.swap) await until(() => hasPepperVersion(cluster, 'ada', 2));
  }

  assert.ok(await pair.clients[0]?.login('cyd'));
  assertNothingRefused(pair.lines);
});

test('a rolling change of the key pair logs nobody out', {
  skip,
}, async (t) => {
  const change = createKeyPairChange(t);
  const cluster = await clusterFor(t, 'postgres');
  const pair = await Pair.start(t, cluster, change.before);
  let session = await pair.clients[0]?.login('bob');
  assert.ok(session);

  for (const env of [change.acceptNew, change.swap, change.dropOld]) {
    for (const index of [0, 1]) {
      await pair.restart(index, env);
      session = await assertWorking(pair.clients, session);
    }
  }

  assertNothingRefused(pair.lines);
});
