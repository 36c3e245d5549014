import { join, resolve } from 'node:path';
import pino, { type Logger as PinoLogger } from 'pino';
import { createFolder } from '../create-folder.js';
import { LineFile, type LineFileOptions } from './line-file.js';
import { redact } from './redact.js';

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/**
 * Logs a short fixed phrase and fields. Never throws and never waits.
 *
 * `error`: needs attention; `warn`: degraded; `info`: life cycle, and a line per request and
 * stream; `debug`: details for diagnosis. An error is logged as `cause`. Never log URLs, bodies,
 * tokens or passwords, nor headers except the user agent in audit lines.
 */
export interface Logger {
  error(fields: object, phrase: string): void;
  warn(fields: object, phrase: string): void;
  info(fields: object, phrase: string): void;
  debug(fields: object, phrase: string): void;
  /** Returns a logger that adds these fields to every line. */
  child(fields: object): Logger;
}

/** The logger of the process; the code that opened it closes it. */
export interface ProcessLogger extends Logger {
  /** Opens new files, because logrotate or an operator has moved the old ones (SIGHUP). */
  reopen(): void;
  /**
   * Resolves when every line is written, or after 5 s. Drops later lines. Idempotent; never
   * rejects.
   */
  close(): Promise<void>;
}

export interface LoggerOptions {
  readonly level: LogLevel;
  /**
   * Folder of `combined.log` (all lines) and `error.log` (`error` lines). No files if undefined.
   */
  readonly folder: string | undefined;
  /** Whether lines are also written to standard output. Default true. */
  readonly stdout?: boolean;
}

/**
 * Opens the log: one JSON object per line, `time` in ISO 8601 (UTC, milliseconds). A terminal on
 * standard output gets human-readable lines instead. Creates the folder.
 *
 * Rejects, with the folder and the setting in the message, when the folder or a file in it cannot be
 * written. If the disk fills up later, lines are lost and counted; nothing else fails.
 */
export async function openLogger({
  level,
  folder,
  stdout = true,
}: LoggerOptions): Promise<ProcessLogger> {
  const format = stdout ? await stdoutFormat() : unchanged;
  const output = stdout ? new LineFile({ fd: process.stdout.fd }, fileOptions(format)) : undefined;
  const writeToStdout = (line: string): void => output?.write(format(line));
  const onFailing = (cause: unknown): void => {
    writeToStdout(formatInternalLine('log file cannot be written', { cause }));
  };
  const [combined, errors] = openFiles(folder, fileOptions(unchanged, onFailing));
  const logger = pino(
    pinoOptions(level),
    pino.multistream([
      ...(output === undefined ? [] : [{ level: 'debug', stream: { write: writeToStdout } }]),
      ...(combined === undefined ? [] : [{ level: 'debug', stream: combined }]),
      ...(errors === undefined ? [] : [{ level: 'error', stream: errors }]),
    ]),
  );
  return createProcessLogger(
    logger,
    [output, combined, errors].filter((file) => file !== undefined),
  );
}

/** Discards all lines. */
export const silentLogger: Logger = {
  error() {},
  warn() {},
  info() {},
  debug() {},
  child: () => silentLogger,
};

const serializers = {
  cause: (cause: Error) => redact({ ...pino.stdSerializers.err(cause) }),
};
const formatters = {
  level: (label: string) => ({ level: label }),
  log: (fields: Record<string, unknown>) => redact(fields),
};
const base = { pid: process.pid };

function pinoOptions(level: LogLevel): pino.LoggerOptions {
  const timestamp = pino.stdTimeFunctions.isoTime;
  return { level, base, timestamp, serializers, formatters, errorKey: 'cause' };
}

/** Converts a JSON line to the text that is written. Both include the line end. */
type Format = (line: string) => string;

const unchanged: Format = (line) => line;

/**
 * Returns the format for standard output. On a terminal: local time, level, phrase and fields on
 * one line, followed by the error.
 */
async function stdoutFormat(): Promise<Format> {
  if (!process.stdout.isTTY) return unchanged;
  const { prettyFactory } = await import('pino-pretty'); // Takes 30 ms to load.
  const toText = prettyFactory({
    singleLine: true,
    ignore: 'pid',
    errorLikeObjectKeys: ['cause'],
  });
  // Removes DEL and the C1 characters, which control a terminal and which JSON does not escape.
  return (line) => toText(line.replaceAll(/[\u007f-\u009f]/g, ''));
}

function openFiles(folder: string | undefined, options: LineFileOptions): LineFile[] {
  if (folder === undefined) return [];
  try {
    createFolder(folder);
    const names = ['combined.log', 'error.log'];
    return names.map((name) => new LineFile({ path: join(folder, name) }, options));
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
    const remedy = 'set LOG_PATH to a folder that can be written, or to off';
    throw new Error(`Cannot open log in ${resolve(folder)}: ${code}; ${remedy}`, { cause });
  }
}

function fileOptions(
  format: Format,
  onFailing: (cause: unknown) => void = () => {},
): LineFileOptions {
  return {
    formatLostNote: (lost) => format(formatInternalLine('log lines were lost', { lost })),
    onFailing,
  };
}

/** Formats a line about the log itself, without pino. */
function formatInternalLine(
  phrase: string,
  { cause, ...fields }: { cause?: unknown; lost?: number },
): string {
  const causeText = cause === undefined ? undefined : String(cause);
  const time = new Date().toISOString();
  const line = { level: 'warn', time, ...base, ...fields, cause: causeText, msg: phrase };
  return `${JSON.stringify(line)}\n`;
}

function createProcessLogger(logger: PinoLogger, files: readonly LineFile[]): ProcessLogger {
  // Writes the last lines when a defect ends the process.
  const flush = () => {
    for (const file of files) file.flush();
  };
  process.on('exit', flush);
  return {
    ...wrapPino(logger),
    reopen() {
      for (const file of files) file.reopen();
    },
    async close() {
      await Promise.all(files.map((file) => file.close()));
      process.off('exit', flush);
    },
  };
}

function wrapPino(logger: PinoLogger): Logger {
  return {
    error: (fields, phrase) => logger.error(fields, phrase),
    warn: (fields, phrase) => logger.warn(fields, phrase),
    info: (fields, phrase) => logger.info(fields, phrase),
    debug: (fields, phrase) => logger.debug(fields, phrase),
    child: (fields) => wrapPino(logger.child(redact({ ...fields }))),
  };
}
