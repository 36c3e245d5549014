import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  listExisting,
  localHosts,
  replaceFile,
  writeCertificate,
} from '../certificates/certificate-files.js';
import { type Config, ConfigError } from '../config/config.js';
import { findWeakness } from '../config/secret-strength.js';
import { createFolder } from '../create-folder.js';
import { withAccounts } from './accounts.js';
import { CommandError } from './command.js';
import { createDemoUser, readDemoUser } from './demo-user.js';

/** The result of `prepareStart`. */
export interface Preparation {
  /** The given settings; `accessToken.secret` is always set. */
  readonly config: Config;
  /** Descriptions of what was just created, one line each. */
  readonly created: readonly string[];
  /** The file with a publish key; undefined if there is none or this start is not for a demonstration. */
  readonly publishKeyFile: string | undefined;
}

/**
 * Creates what a start outside production needs, unless it exists: a certificate and its private key, except
 * without TLS, and a random token secret. Key and secret are readable by their owner only.
 *
 * On a first start it also creates the demo user and a publish key. A first start has no `.env`, no
 * setting that may expose Herald beyond this machine, and an embedded database without users and keys.
 *
 * In production it creates nothing, and throws if a certificate, its key or the secret is missing. Outside
 * production it throws when only the certificate or only its key exists, and when the generated secret is
 * weak or unreadable.
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
  const hasPublishKey = isDemo && existsSync(publishKeyFile);
  return {
    config: Object.freeze(config),
    created,
    publishKeyFile: hasPublishKey ? publishKeyFile : undefined,
  };
}

/** Returns the text to print once the server listens at `url`. Empty in production. */
export function formatWelcome(
  { config, created, publishKeyFile }: Preparation,
  url: string,
): string {
  if (config.isProduction) return '';
  const createdLines = created.length === 0 ? [] : ['Created:', ...indent(created), ''];
  const { username, password } = readDemoUser();
  const { certificateFile } = config.http;
  const curl = `curl --cacert ${certificateFile} ${url}`;
  const demo = [
    'Log in:',
    ...indent([`${curl}/login --json '{"username": "${username}", "password": "${password}"}'`]),
    'Publish:',
    ...indent([
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

function indent(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`);
}

/**
 * Returns a problem for each missing file of certificate and private key, if Herald must not
 * generate them: in production, and when one of the two exists, because the existing one may be
 * valuable.
 */
export function findCertificateProblems({
  http,
  isProduction,
}: Pick<Config, 'http' | 'isProduction'>): string[] {
  const { tls, certificateFile, privateKeyFile } = http;
  if (!tls) return [];
  const [existing, ...others] = listExisting(http);
  if (others.length > 0 || (existing === undefined && !isProduction)) return [];
  const files = { CERTIFICATE: certificateFile, PRIVATE_KEY: privateKeyFile };
  const why = existing === undefined ? '' : `, although ${existing} exists`;
  return Object.entries(files)
    .filter(([, file]) => file !== existing)
    .map(([setting, file]) => `${setting}: ${file} does not exist${why}`);
}

function prepareCertificate(config: Config): string[] {
  const { http } = config;
  const { certificateFile, privateKeyFile } = http;
  const problems = findCertificateProblems(config);
  if (problems.length > 0) throw new ConfigError(problems);
  if (!http.tls || listExisting(http).length > 0) return [];
  writeCertificate(http, localHosts);
  return [
    `Certificate  ${certificateFile}, for ${localHosts.join(', ')}`,
    `Private key  ${privateKeyFile}`,
  ];
}

/** Returns the secret of the settings, or else the secret that was generated earlier, or else a new one. */
function prepareSecret({ accessToken, dataFolder, isProduction }: Config) {
  const file = join(dataFolder, 'access-token.secret');
  const { secret: given, algorithm } = accessToken;
  if (given !== undefined) return { secret: given, isNew: false, file };
  if (isProduction) throw new CommandError('Cannot start: ACCESS_TOKEN_SECRET is required');
  if (existsSync(file)) {
    const secret = Buffer.from(readSecretFile(file), 'base64');
    const weakness = findWeakness(algorithm, secret);
    if (weakness === undefined) return { secret, isNew: false, file };
    throw new CommandError(`Cannot start: ${file} ${weakness}; delete it to generate a new one`);
  }
  const secret = randomBytes(64);
  createDataFolder(dataFolder);
  replaceFile(file, `${secret.toString('base64')}\n`, 0o600);
  return { secret, isNew: true, file };
}

function createDataFolder(folder: string): void {
  try {
    createFolder(folder, 0o700);
  } catch (cause) {
    const remedy = 'set DATA_DIR to a folder that can be written';
    throw new CommandError(`Cannot create ${folder}: ${remedy}`, { cause });
  }
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

/**
 * Creates the demo user and then a publish key, unless the database has users or keys. In this order, a
 * login works even if the start is interrupted between the two. Returns a line for each thing created.
 */
function createDemo(config: Config, publishKeyFile: string): Promise<string[]> {
  return withAccounts(config, async (parts) => {
    const [someUser] = await parts.users.list({ limit: 1 });
    const [someKey] = await parts.apiKeys.list();
    if (someUser !== undefined || someKey !== undefined) return [];
    await createDemoUser(parts);
    const { key } = await parts.apiKeys.create({
      name: 'first-start',
      scopes: ['publish', 'tickets', 'topics'],
      userPrefix: '',
    });
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
 * Whether Herald serves only this machine. False with a configured proxy, CORS origin or secret, and without
 * TLS, because these suggest remote clients: a local proxy connects from this machine on their behalf.
 */
function isLocal({ http, isProduction, accessToken }: Config): boolean {
  const { host, tls, trustProxyHops, corsOrigins } = http;
  const hasProxy = !tls || trustProxyHops > 0;
  const isExposed = hasProxy || corsOrigins.length > 0 || accessToken.secret !== undefined;
  return !isProduction && !isExposed && localHosts.includes(host);
}
