import { readFileSync } from 'node:fs';

/** Version of Herald, from `package.json`, which is one folder above both `src` and `dist`. */
export const version = readVersion();

function readVersion(): string {
  const file = new URL('../package.json', import.meta.url);
  const { version } = JSON.parse(readFileSync(file, 'utf8')) as { version: string }; // A file of this package.
  return version;
}
