import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import {
  type BrowserContextOptions,
  chromium,
  type LaunchOptions,
  type Page,
} from 'playwright-core';

/** Returns the path of an installed Chromium or Chrome, or undefined. `test/browser.sh` installs Chromium. */
export function findChromium(): string | undefined {
  const names = ['chromium', 'chromium-browser', 'google-chrome'];
  return names.map((name) => `/usr/bin/${name}`).find((path) => existsSync(path));
}

/** Opens `url` in a headless browser that accepts any certificate. The browser is closed after the test. */
export function openPage(t: TestContext, executablePath: string, url: string): Promise<Page> {
  return open(t, url, { executablePath }, { ignoreHTTPSErrors: true });
}

/**
 * Opens `url` in a headless browser that trusts its built-in authorities and, if given, the certificate in this
 * file. Needs `certutil`. The browser is closed after the test.
 */
export async function openTrustingPage(
  t: TestContext,
  executablePath: string,
  url: string,
  certificate?: string,
): Promise<Page> {
  const home = mkdtempSync(join(tmpdir(), 'herald-home-'));
  try {
    const env = { ...process.env, HOME: home };
    createCertificateStore(home, certificate);
    return await open(t, url, { executablePath, env }, {});
  } finally {
    // Registered last, so that the folder is removed after the browser is closed.
    t.after(() => rmSync(home, { recursive: true, force: true }));
  }
}

/** Creates the certificate store of a home folder, as certificate/README.md says. */
function createCertificateStore(home: string, certificate: string | undefined): void {
  const folder = join(home, '.pki', 'nssdb');
  const certutil = (...args: string[]) =>
    execFileSync('certutil', ['-d', `sql:${folder}`, ...args]);
  mkdirSync(folder, { recursive: true });
  certutil('-N', '--empty-password');
  if (certificate === undefined) return;
  certutil('-A', '-t', 'CP,,', '-n', 'herald', '-i', certificate);
}

async function open(
  t: TestContext,
  url: string,
  launchOptions: LaunchOptions,
  pageOptions: BrowserContextOptions,
): Promise<Page> {
  const browser = await chromium.launch({
    chromiumSandbox: process.getuid?.() !== 0, // The sandbox does not work as root.
    timeout: 60_000,
    args: ['--no-first-run', '--disable-background-networking', '--disable-component-update'],
    ...launchOptions,
  });
  t.after(() => browser.close());
  const page = await browser.newPage(pageOptions);
  page.setDefaultTimeout(60_000);
  await page.goto(url);
  return page;
}
