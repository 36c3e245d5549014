import type { EnvReader } from './env-reader.js';

/**
 * Parses origins in the form that browsers send: of a page (`https://example.com`), or of an app that loads its
 * pages from itself (`capacitor://localhost`, `app://.`). Spec: Fetch §3.2 (`Origin`).
 */
export function parseOrigins(reader: EnvReader, name: string): readonly string[] {
  const origins = reader.list(name);
  const invalid = origins.filter((origin) => !isPageOrigin(origin) && !isAppOrigin(origin));
  if (invalid.length > 0) {
    const values = invalid.map((origin) => origin.slice(0, 100)).join(', ');
    const rule = 'each as a browser sends it, without path and wildcard';
    reader.problems.push(
      `${name} must list origins such as https://example.com or capacitor://localhost, ${rule}; not: ${values}`,
    );
  }
  return origins;
}

function isPageOrigin(text: string): boolean {
  const isHttpUrl = /^https?:\/\/[^*]+$/.test(text) && URL.canParse(text);
  return isHttpUrl && new URL(text).origin === text;
}

/**
 * Schemes that cannot be the scheme of an app origin: `isPageOrigin` accepts `http` and `https`, pages of `file`
 * and `data` have the origin `null`, and no page has an origin with one of the others.
 */
const nonAppSchemes = ['http', 'https', 'ws', 'wss', 'ftp', 'file', 'data', 'blob', 'about'];

function isAppOrigin(text: string): boolean {
  const [, scheme] = /^([a-z][a-z\d+.-]*):\/\/[\w.~-]+(?::\d{1,5})?$/.exec(text) ?? [];
  return scheme !== undefined && !nonAppSchemes.includes(scheme);
}
