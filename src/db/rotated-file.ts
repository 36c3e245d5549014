import { readFileSync } from 'node:fs';
import type { Logger } from '../logging/logger.js';

/** A setting for new connections: a fixed text, or a function that returns the text for each connection. */
export type RotatableText = string | (() => string);

export function getCurrentText(value: RotatableText): string {
  return typeof value === 'string' ? value : value();
}

interface RotatedFileOptions {
  /** The content at the start. */
  readonly content: string;
  /** The name of the setting, for the log. */
  readonly setting: string;
  readonly log: Logger;
}

/**
 * Returns a function that reads a file again with each call, because its content may have been replaced.
 * While the file is missing, unreadable or empty, the function returns its last content, and logs that
 * once. It never throws, because an error in the packages that call it would end the process.
 */
export function createRotatedFile(
  path: string,
  { content, setting, log }: RotatedFileOptions,
): () => string {
  let lastContent = content;
  let isFailing = false;
  return () => {
    try {
      const text = readFileSync(path, 'utf8').trim();
      if (text === '') throw new Error('The file is empty');
      lastContent = text;
      isFailing = false;
    } catch (cause) {
      if (!isFailing) log.warn({ setting, cause }, 'file cannot be read, using its last content');
      isFailing = true;
    }
    return lastContent;
  };
}
