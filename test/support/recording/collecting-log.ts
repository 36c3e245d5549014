import type { Logger, LogLevel } from '../../../src/logging/logger.js';
import { recordedLog } from './record.js';

/** Returns a logger that adds each line, including the lines of its children, to `lines` as an object. */
export function collectingLog(lines: Record<string, unknown>[], fields: object = {}): Logger {
  const add = (level: LogLevel) => (extraFields: object, phrase: string) => {
    lines.push({ level, phrase, ...fields, ...extraFields });
    recordedLog[level]({ ...fields, ...extraFields }, phrase);
  };
  return {
    error: add('error'),
    warn: add('warn'),
    info: add('info'),
    debug: add('debug'),
    child: (extraFields) => collectingLog(lines, { ...fields, ...extraFields }),
  };
}
