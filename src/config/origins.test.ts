import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, loadConfig } from './config.js';

test('origins of pages and of apps are accepted', () => {
  const origins = [
    'https://app.example.com',
    'http://localhost:5173',
    'https://[2001:db8::1]:8443',
    'https://xn--bcher-kva.example',
    'capacitor://localhost',
    'ionic://localhost',
    'tauri://localhost',
    'app://.',
    'app://obsidian.md',
    'chrome-extension://abcdefghijklmnopabcdefghijklmnop',
    'moz-extension://1f0c2a3b-0000-4000-8000-000000000000',
  ];

  const { http } = loadConfig({ CORS_ORIGINS: origins.join(', ') });

  assert.deepEqual(http.corsOrigins, origins);
});

// Each matches no page, or pages of more than one origin.
const invalidOrigins = [
  'https://*.example.com',
  'https://*',
  '*',
  'null',
  'https://a.example/',
  'https://a.example/x',
  'https://A.example',
  'https://a.example:443',
  'https://user@a.example',
  'https://b\u00fccher.example',
  'a.example',
  'wss://a.example',
  'file://',
  'file://localhost',
  'data://x',
  'capacitor://',
  'capacitor://*',
  'capacitor://localhost/',
  'capacitor://a@localhost',
  'Capacitor://localhost',
];

for (const origin of invalidOrigins) {
  test(`the CORS origin ${origin} is refused at the start, and the problem names it`, () => {
    const load = () => loadConfig({ CORS_ORIGINS: `https://good.example, ${origin}` });

    assert.throws(load, (error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.problems.join(), /^CORS_ORIGINS must list origins such as https:/);
      assert.ok(error.problems.join().endsWith(`; not: ${origin}`));
      return true;
    });
  });
}

test('a problem with CORS_ORIGINS has at most 100 characters of a value', () => {
  const load = (length: number) => () => loadConfig({ CORS_ORIGINS: `*${'x'.repeat(length - 1)}` });

  assert.throws(load(100), /; not: \*x{99}$/);
  assert.throws(load(101), /; not: \*x{99}$/);
});
