import { appendFileSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Logger, openLogger, silentLogger } from '../../../src/logging/logger.js';

/**
 * Folder in which the tests of a run record each secret that was issued or typed, and each log line;
 * `test/secrets-in-logs.ts` searches it. Set by `test/run.mjs`; otherwise nothing is recorded.
 */
const folder = process.env['HERALD_TEST_RECORD'];

/** Members of bodies that must never appear in a log. */
const secretMembers = ['password', 'token', 'accessToken', 'refreshToken', 'streamToken', 'key'];

/** The log for tests that do not inspect it: Herald's own logger, which writes into the folder above. */
export const recordedLog: Logger =
  folder === undefined
    ? silentLogger
    : await openLogger({ level: 'debug', folder: join(folder, `${process.pid}`), stdout: false });

/** Records a password, token or key that is in use. */
export function recordSecret(secret: string): void {
  if (folder === undefined || secret === '') return;
  appendFileSync(join(folder, `${process.pid}.secrets`), `${JSON.stringify(secret)}\n`);
}

/** Records the secrets in the body of a request or response. */
export function recordSecretsIn(body: unknown): void {
  if (folder === undefined || typeof body !== 'object' || body === null) return;
  for (const member of secretMembers) {
    const value: unknown = Reflect.get(body, member);
    if (typeof value === 'string') recordSecret(value);
  }
}

/** Records log lines of another process. */
export function recordLines(text: string): void {
  if (folder === undefined || text === '') return;
  mkdirSync(join(folder, `${process.pid}`), { recursive: true });
  appendFileSync(join(folder, `${process.pid}`, 'others.log'), `${text}\n`);
}

/** Records all log files in a folder that is about to be removed, also those in its subfolders. */
export function recordLogFilesIn(directory: string): void {
  if (folder === undefined) return;
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  // Only files: a test can have a folder or a pipe with this name.
  for (const entry of entries.filter((one) => one.isFile() && one.name.endsWith('.log'))) {
    recordLines(readFileSync(join(entry.parentPath, entry.name), 'utf8'));
  }
}
