import type { Logger, LogLevel } from '../../../src/logging/logger.js';
import { recordedLog } from './record.js';

/** Returns a logger that adds each line to `lines` as an object, also the lines of its children. */
export function collectingLog(lines: Record<string, unknown>[], fields: object = {}): Logger {
  const add = (level: LogLevel) => (more: object, phrase: string) => {
    lines.push({ level, phrase, ...fields, ...more });
    recordedLog[level]({ ...fields, ...more }, phrase);
  };
  return {
    error: add('error'),
    warn: add('warn'),
    info: add('info'),
    debug: add('debug'),
    child: (more) => collectingLog(lines, { ...fields, ...more }),
  };
}
