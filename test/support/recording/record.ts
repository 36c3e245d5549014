import { appendFileSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Logger, openLogger, silentLogger } from '../../../src/logging/logger.js';

/**
 * What a run of all tests leaves behind to be searched (`test/secrets-in-logs.ts`): the secrets that
 * were issued or typed, and every line that was logged. Set by `test/run.mjs`; without it nothing is
 * recorded.
 */
const folder = process.env['HERALD_TEST_RECORD'];

/** Members of bodies that must never be seen in a log. */
const secretMembers = ['password', 'token', 'accessToken', 'refreshToken', 'streamToken', 'key'];

/** Ours, for tests that do not look at it: the product's own log, as it would be on a disk. */
export const recordedLog: Logger =
  folder === undefined
    ? silentLogger
    : await openLogger({ level: 'debug', folder: join(folder, `${process.pid}`), stdout: false });

/** A password, token or key that is in use from now on. */
export function recordSecret(secret: string): void {
  if (folder === undefined || secret === '') return;
  appendFileSync(join(folder, `${process.pid}.secrets`), `${JSON.stringify(secret)}\n`);
}

/** The secrets of a request or an answer. */
export function recordSecretsIn(body: unknown): void {
  if (folder === undefined || typeof body !== 'object' || body === null) return;
  for (const member of secretMembers) {
    const value: unknown = Reflect.get(body, member);
    if (typeof value === 'string') recordSecret(value);
  }
}

/** Lines that another process has logged. */
export function recordLines(text: string): void {
  if (folder === undefined || text === '') return;
  mkdirSync(join(folder, `${process.pid}`), { recursive: true });
  appendFileSync(join(folder, `${process.pid}`, 'others.log'), `${text}\n`);
}

/** The log files anywhere below a folder, which is about to be removed. */
export function recordLogFilesIn(directory: string): void {
  if (folder === undefined) return;
  const names = readdirSync(directory, { recursive: true, encoding: 'utf8' });
  for (const name of names.filter((one) => one.endsWith('.log'))) {
    recordLines(readFileSync(join(directory, name), 'utf8'));
  }
}
