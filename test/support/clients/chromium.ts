import { existsSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { chromium, type Page } from 'playwright-core';

/** Returns the path of an installed Chromium or Chrome, or undefined. `test/browser.sh` installs Chromium. */
export function findChromium(): string | undefined {
  const names = ['chromium', 'chromium-browser', 'google-chrome'];
  return names.map((name) => `/usr/bin/${name}`).find((path) => existsSync(path));
}

/** Opens `url` in a headless browser that accepts any certificate. The browser is closed after the test. */
export async function openPage(t: TestContext, executablePath: string, url: string): Promise<Page> {
  const browser = await chromium.launch({
    executablePath,
    chromiumSandbox: process.getuid?.() !== 0, // The sandbox does not work as root.
    timeout: 60_000,
    args: ['--no-first-run', '--disable-background-networking', '--disable-component-update'],
  });
  t.after(() => browser.close());
  const page = await browser.newPage({ ignoreHTTPSErrors: true });
  page.setDefaultTimeout(60_000);
  await page.goto(url);
  return page;
}
