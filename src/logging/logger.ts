import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import pino, { type Logger as PinoLogger } from 'pino';
import { LineFile, type LineFileOptions } from './line-file.js';
import { redact } from './redact.js';

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/**
 * Where the running system says what it does: a short fixed phrase, and fields.
 *
 * `error`: someone must look; `warn`: degraded; `info`: life cycle, and a line per request and stream;
 * `debug`: what helps to find a fault. An error goes under `cause`. Never throws and never waits. No URLs,
 * bodies, tokens or passwords; of headers only the user agent, in audit lines.
 */
export interface Logger {
  error(fields: object, phrase: string): void;
  warn(fields: object, phrase: string): void;
  info(fields: object, phrase: string): void;
  debug(fields: object, phrase: string): void;
  /** The same log; every line also carries these fields. */
  child(fields: object): Logger;
}

/** The log of the process, held by whoever opened it. */
export interface ProcessLogger extends Logger {
  /** Goes on in new files, after logrotate or a hand moved the old ones away (SIGHUP). */
  reopen(): void;
  /** Settles when every line is written. Twice is fine; later lines are let go. Never rejects. */
  close(): Promise<void>;
}

export interface LoggerOptions {
  readonly level: LogLevel;
  /** Gets `combined.log` (all lines) and `error.log` (`error` lines); undefined: no files. */
  readonly folder: string | undefined;
  /** Lines go to standard output too. Default true. */
  readonly stdout?: boolean;
}

/**
 * Opens the log: one JSON object a line, `time` in ISO 8601 (UTC, milliseconds). A terminal on standard
 * output gets readable lines instead. Makes the folder.
 *
 * Rejects with a clear message when the folder or a file in it cannot be written. A disk that
 * fills up later costs lines, which are counted, and nothing else.
 */
export async function openLogger({
  level,
  folder,
  stdout = true,
}: LoggerOptions): Promise<ProcessLogger> {
  const format = stdout ? await stdoutFormat() : asIs;
  const output = stdout ? new LineFile({ fd: process.stdout.fd }, fileOptions(format)) : undefined;
  const writeToStdout = (line: string): void => output?.write(format(line));
  const onFailing = (cause: unknown): void => {
    writeToStdout(formatOwnLine('log file cannot be written', { cause }));
  };
  const [combined, errors] = openFiles(folder, fileOptions(asIs, onFailing));
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

/** Takes everything, keeps nothing. */
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

/** What a line becomes before it is written, line end included. */
type Format = (line: string) => string;

const asIs: Format = (line) => line;

/** On a terminal: local time, level, phrase and fields in one line, an error below it. */
async function stdoutFormat(): Promise<Format> {
  if (!process.stdout.isTTY) return asIs;
  const { prettyFactory } = await import('pino-pretty'); // Loads in 30 ms, and only here.
  const toText = prettyFactory({
    singleLine: true,
    ignore: 'pid',
    errorLikeObjectKeys: ['cause'],
  });
  // JSON leaves DEL and C1 as they are, and a terminal obeys those.
  return (line) => toText(line.replaceAll(/[\u007f-\u009f]/g, ''));
}

function openFiles(folder: string | undefined, options: LineFileOptions): LineFile[] {
  if (folder === undefined) return [];
  try {
    mkdirSync(folder, { recursive: true });
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
    formatLostNote: (lost) => format(formatOwnLine('log lines were lost', { lost })),
    onFailing,
  };
}

/** A line about the log itself, made without it. */
function formatOwnLine(
  phrase: string,
  { cause, ...fields }: { cause?: unknown; lost?: number },
): string {
  const causeText = cause === undefined ? undefined : String(cause);
  const time = new Date().toISOString();
  const line = { level: 'warn', time, ...base, ...fields, cause: causeText, msg: phrase };
  return `${JSON.stringify(line)}\n`;
}

function createProcessLogger(logger: PinoLogger, files: readonly LineFile[]): ProcessLogger {
  // A process that ends in a hurry, by a defect, still leaves its last lines.
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
