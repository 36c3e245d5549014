import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Secrets that are shorter are not searched for, because they would match by chance. */
const secretLengthMin = 12;

export interface SearchResult {
  /** Number of distinct secrets. */
  readonly secretCount: number;
  /** Number of log lines. */
  readonly lineCount: number;
  /** The log lines that contain a secret. */
  readonly hits: readonly string[];
}

/** Searches the log lines that `record.ts` has recorded in a folder for the secrets recorded there. */
export function searchRecord(folder: string): SearchResult {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  const read = (ending: string) =>
    names
      .filter((name) => name.endsWith(ending))
      .flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n'))
      .filter((line) => line !== '');
  const secrets = new Set(read('.secrets').map((line): string => JSON.parse(line)));
  const lines = read('.log');
  return {
    secretCount: secrets.size,
    lineCount: lines.length,
    hits: findLinesWith(secrets, lines),
  };
}

/** Returns the lines with a secret or the first half of one: plain, URL-encoded or JSON-escaped. */
export function findLinesWith(secrets: Iterable<string>, lines: readonly string[]): string[] {
  const byStart = new Map<string, string[]>();
  for (const encoded of [...secrets].flatMap(getEncodings)) {
    const start = encoded.slice(0, secretLengthMin);
    byStart.set(start, [...(byStart.get(start) ?? []), encoded]);
  }
  return lines.filter((line) => {
    for (let at = 0; at + secretLengthMin <= line.length; at += 1) {
      const candidates = byStart.get(line.slice(at, at + secretLengthMin));
      if (candidates?.some((candidate) => line.startsWith(candidate, at))) return true;
    }
    return false;
  });
}

/**
 * Returns the texts to search for: the first half of the secret in each encoding. For a JWT it uses only the
 * signature, because all JWTs start with the same header and an unsigned JWT is worthless.
 */
function getEncodings(secret: string): string[] {
  const text = /^[\w-]+\.[\w-]+\.([\w-]+)$/.exec(secret)?.[1] ?? secret;
  const half = text.slice(0, Math.max(secretLengthMin, Math.ceil(text.length / 2)));
  const encodings = [half, encodeURIComponent(half), JSON.stringify(half).slice(1, -1)];
  return [...new Set(encodings)].filter((one) => one.length >= secretLengthMin);
}
