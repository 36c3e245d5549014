import type { EnvReader } from './env-reader.js';

/**
 * Parses origins as browsers send them: of a page (`https://example.com`), or of an app whose page is loaded
 * from the app itself (`capacitor://localhost`, `app://.`). Spec: Fetch §3.2 (`Origin`).
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
  const mayBe = /^https?:\/\/[^*]+$/.test(text) && URL.canParse(text);
  return mayBe && new URL(text).origin === text;
}

/** Schemes without origins of apps: `file` and `data` pages have the origin `null`, and the others no pages. */
const otherSchemes = ['http', 'https', 'ws', 'wss', 'ftp', 'file', 'data', 'blob', 'about'];

function isAppOrigin(text: string): boolean {
  const [, scheme] = /^([a-z][a-z\d+.-]*):\/\/[\w.~-]+(?::\d{1,5})?$/.exec(text) ?? [];
  return scheme !== undefined && !otherSchemes.includes(scheme);
}
