import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Shorter ones turn up by chance; tests that care use longer ones. */
const lengthMin = 12;

export interface SearchResult {
  readonly secrets: number;
  readonly lines: number;
  /** Log lines with a secret in them. */
  readonly hits: readonly string[];
}

/** Searches what `record.ts` has recorded in a folder. */
export function searchRecord(folder: string): SearchResult {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  const read = (ending: string) =>
    names
      .filter((name) => name.endsWith(ending))
      .flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n'))
      .filter((line) => line !== '');
  const secrets = new Set(read('.secrets').map((line): string => JSON.parse(line)));
  const lines = read('.log');
  return { secrets: secrets.size, lines: lines.length, hits: findLinesWith(secrets, lines) };
}

/** Those of the lines that have one of the secrets, or its first half, in a spelling it travels in. */
export function findLinesWith(secrets: Iterable<string>, lines: readonly string[]): string[] {
  const byStart = new Map<string, string[]>();
  for (const spelling of [...secrets].flatMap(getEncodings)) {
    const start = spelling.slice(0, lengthMin);
    byStart.set(start, [...(byStart.get(start) ?? []), spelling]);
  }
  return lines.filter((line) => {
    for (let at = 0; at + lengthMin <= line.length; at += 1) {
      const spellings = byStart.get(line.slice(at, at + lengthMin));
      if (spellings?.some((spelling) => line.startsWith(spelling, at))) return true;
    }
    return false;
  });
}

/** Of a JWT the signature: its header is the same for all, and without it the rest is worth nothing. */
function getEncodings(secret: string): string[] {
  const text = /^[\w-]+\.[\w-]+\.([\w-]+)$/.exec(secret)?.[1] ?? secret;
  const half = text.slice(0, Math.max(lengthMin, Math.ceil(text.length / 2)));
  const spellings = [half, encodeURIComponent(half), JSON.stringify(half).slice(1, -1)];
  return [...new Set(spellings)].filter((one) => one.length >= lengthMin);
}
