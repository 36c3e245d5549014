import { readFileSync } from 'node:fs';

/** Version of Herald, from `package.json`: one folder up, from `src` and from `dist`. */
export const version = readVersion();

function readVersion(): string {
  const file = new URL('../package.json', import.meta.url);
  const { version } = JSON.parse(readFileSync(file, 'utf8')) as { version: string }; // Part of this package.
  return version;
}
