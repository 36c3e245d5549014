import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Config, ConfigError } from '../config/config.js';
import { findWeakness } from '../config/secret-strength.js';
import { withAccounts } from './accounts.js';
import { listExisting, localHosts, replaceFile, writeCertificate } from './certificate-files.js';
import { CommandError } from './command.js';
import { createDemoUser, readDemoUser } from './demo-user.js';

/** What a start can go on with. */
export interface Preparation {
  /** With a secret, in any case. */
  readonly config: Config;
  /** What was made up just now, a line each. */
  readonly created: readonly string[];
  /** There is a key in it to publish with; undefined where nobody asked for a demonstration. */
  readonly publishKeyFile: string | undefined;
}

/**
 * Makes what is needed to start and is not there, outside production: certificate, private key and
 * token secret at random, in files that only their owner can read.
 *
 * For somebody who has just fetched Herald also the demo user and a key to publish with: when there
 * is no `.env`, the database is the embedded one and has neither users nor keys, and nothing says
 * that it is for others than who sits at this machine. In production, and when only one half of the
 * certificate is there, it throws and names what is missing.
 */
export async function prepareStart(
  given: Config,
  { hasEnvFile }: { hasEnvFile: boolean },
): Promise<Preparation> {
  const created = prepareCertificate(given);
  const { secret, isNew, file } = prepareSecret(given);
  if (isNew) created.push(`Secret       ${file}, for access tokens`);
  const config = { ...given, accessToken: { ...given.accessToken, secret } };
  const publishKeyFile = join(config.dataFolder, 'publish.key');
  const isDemo = !hasEnvFile && isLocal(given) && config.database.dialect === 'sqlite';
  if (isDemo && !existsSync(publishKeyFile))
    created.push(...(await createDemo(config, publishKeyFile)));
  const hasKey = isDemo && existsSync(publishKeyFile);
  return {
    config: Object.freeze(config),
    created,
    publishKeyFile: hasKey ? publishKeyFile : undefined,
  };
}

/** What to tell whoever started it, once it listens at `url`. Empty in production. */
export function welcomeText({ config, created, publishKeyFile }: Preparation, url: string): string {
  if (config.production) return '';
  const createdLines = created.length === 0 ? [] : ['Created:', ...indented(created), ''];
  const { username, password } = readDemoUser();
  const { certificateFile } = config.http;
  const curl = `curl --cacert ${certificateFile} ${url}`;
  const demo = [
    'Log in:',
    ...indented([`${curl}/login --json '{"username": "${username}", "password": "${password}"}'`]),
    'Publish:',
    ...indented([
      `${curl}/events --header "Authorization: Bearer $(cat ${publishKeyFile})" \\`,
      `  --json '{"to": "all", "type": "greeting", "data": {"hello": "world"}}'`,
    ]),
  ];
  return [
    ...createdLines,
    `Herald serves ${url}, for development.`,
    ...(publishKeyFile === undefined ? [] : demo),
  ].join('\n');
}

function indented(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`);
}

/**
 * What is missing of certificate and private key, of a pair that is not to be made up: in production,
 * and where one half is there, which may be precious.
 */
export function certificateProblems({
  http,
  production,
}: Pick<Config, 'http' | 'production'>): string[] {
  const { certificateFile, privateKeyFile } = http;
  const [half, ...others] = listExisting(http);
  if (others.length > 0 || (half === undefined && !production)) return [];
  const files = { CERTIFICATE: certificateFile, PRIVATE_KEY: privateKeyFile };
  const why = half === undefined ? '' : `, although ${half} exists`;
  return Object.entries(files)
    .filter(([, file]) => file !== half)
    .map(([setting, file]) => `${setting}: ${file} does not exist${why}`);
}

function prepareCertificate(config: Config): string[] {
  const { http } = config;
  const { certificateFile, privateKeyFile } = http;
  const problems = certificateProblems(config);
  if (problems.length > 0) throw new ConfigError(problems);
  if (listExisting(http).length > 0) return [];
  writeCertificate(http, localHosts);
  return [
    `Certificate  ${certificateFile}, for ${localHosts.join(', ')}`,
    `Private key  ${privateKeyFile}`,
  ];
}

/** That of the settings, else the one made up before, else a new one. */
function prepareSecret({ accessToken, dataFolder, production }: Config) {
  const file = join(dataFolder, 'access-token.secret');
  const { secret: given, algorithm } = accessToken;
  if (given !== undefined) return { secret: given, isNew: false, file };
  if (production) throw new CommandError('Cannot start: ACCESS_TOKEN_SECRET is required');
  if (existsSync(file)) {
    const secret = Buffer.from(readSecretFile(file), 'base64');
    const weakness = findWeakness(algorithm, secret);
    if (weakness === undefined) return { secret, isNew: false, file };
    throw new CommandError(`Cannot start: ${file} ${weakness}; delete it to generate a new one`);
  }
  const secret = randomBytes(64);
  mkdirSync(dataFolder, { recursive: true, mode: 0o700 });
  replaceFile(file, `${secret.toString('base64')}\n`, 0o600);
  return { secret, isNew: true, file };
}

function readSecretFile(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const state = code === 'EACCES' ? 'it belongs to another user' : 'it is not readable';
    throw new CommandError(`Cannot read ${file} (${code}): ${state}; set DATA_DIR`, { cause });
  }
}

/** The demo user before the key: when it is cut off between, there is at least a login. */
function createDemo(config: Config, publishKeyFile: string): Promise<string[]> {
  return withAccounts(config, async (parts) => {
    const [someUser] = await parts.users.list({ limit: 1 });
    const [someKey] = await parts.apiKeys.list();
    if (someUser !== undefined || someKey !== undefined) return [];
    await createDemoUser(parts);
    const { key } = await parts.apiKeys.create({ name: 'first-start', scopes: ['publish'] });
    replaceFile(publishKeyFile, `${key}\n`, 0o600);
    const { username, password } = readDemoUser();
    return [
      `Database     ${config.database.file}`,
      `Demo user    ${username}, with password ${password}`,
      `Publish key  ${publishKeyFile}`,
    ];
  });
}

/**
 * Whether it is only for this machine. A proxy in front of it connects from here, too, for everybody:
 * so whoever has told of a proxy, of pages elsewhere or of a secret of their own gets no demo.
 */
function isLocal({ http, production, accessToken }: Config): boolean {
  const { host, trustProxyHops, corsOrigins } = http;
  const isExposed =
    trustProxyHops > 0 || corsOrigins.length > 0 || accessToken.secret !== undefined;
  return !production && !isExposed && localHosts.includes(host);
}
