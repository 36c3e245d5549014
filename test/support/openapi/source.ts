import { readFileSync } from 'node:fs';
import { parse } from 'yaml';

const yamlFile = new URL('../../../docs/openapi.yaml', import.meta.url);

export const jsonFile = new URL('../../../src/openapi.json', import.meta.url);

/** Returns the text of `src/openapi.json` as `docs/openapi.yaml` determines it. Throws for duplicate keys. */
export function renderJson(): string {
  const document = parse(readFileSync(yamlFile, 'utf8'), { maxAliasCount: 1000 });
  return `${JSON.stringify(document, null, 1)}\n`;
}
