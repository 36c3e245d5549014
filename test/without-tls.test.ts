// Repeats these tests without TLS.
process.env['TEST_TLS'] = 'off';

await import('./dead-peer-detector.test.js');
await import('./hardening-h2.test.js');
await import('./hardening-http1.test.js');
await import('../src/http/server.test.js');
