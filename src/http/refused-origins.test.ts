import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask } from '../../test/support/clients/ask.js';
import { protocols } from '../../test/support/clients/exchange.js';
import { collectingLog } from '../../test/support/recording/collecting-log.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { scheme } from '../../test/support/servers/scheme.js';
import { WarningAggregator } from '../logging/warning-aggregator.js';
import { json } from './reply.js';
import { route, serverRoute } from './router.js';

const listedOrigin = 'https://app.example';
const routes = [
  route('POST', '/hello', () => json(200, {})),
  serverRoute('POST', '/publish', () => json(200, {})),
];
const unlisted = 'not in CORS_ORIGINS';

for (const protocol of protocols) {
  test(`the first refusal of an origin over ${protocol} is logged at once, and later refusals once a minute`, async (t) => {
    const time = { now: 0 };
    const logged: Record<string, unknown>[] = [];
    const warnings = new WarningAggregator({
      log: collectingLog(logged),
      monotonicClock: () => time.now,
    });
    const { port } = await startHttp(t, routes, { warnings, corsOrigins: [listedOrigin] });
    const send = (method: string, origin: string) =>
      ask(protocol, port, method, '/hello', { headers: { origin } });
    const reportAt = (ms: number) => {
      time.now = ms;
      warnings.report();
      return logged.splice(0).map(({ level, phrase, origin, reason, repeated }) => ({
        ...{ level, phrase, origin, reason, repeated },
      }));
    };
    const line = { level: 'warn', phrase: 'origin refused', origin: 'https://evil.example' };

    await send('OPTIONS', 'https://evil.example');
    for (let count = 0; count < 3; count += 1) await send('POST', 'https://evil.example');
    await send('POST', listedOrigin);

    assert.deepEqual(reportAt(59_999), [{ ...line, reason: unlisted, repeated: undefined }]);
    assert.deepEqual(reportAt(60_000), [{ ...line, reason: unlisted, repeated: 3 }]);
    assert.deepEqual(reportAt(120_000), []);
  });

  test(`a refused Origin header over ${protocol} is logged only if its value has the form of an origin`, async (t) => {
    const logged: Record<string, unknown>[] = [];
    const log = collectingLog(logged);
    const warnings = new WarningAggregator({ log, monotonicClock: () => 0 });
    const { port } = await startHttp(t, routes, { warnings });
    const longHost = 'x'.repeat(255);
    // [Origin, logged origin]
    const cases = [
      ['null', 'null'],
      ['capacitor://localhost', 'capacitor://localhost'],
      ['http://[::1]:5173', 'http://[::1]:5173'],
      [`https://${longHost}`, `https://${longHost}`],
      [`https://${longHost}x`, '(malformed)'],
      ['https://evil.example/?token=secret', '(malformed)'],
      ['https://user:password@evil.example', '(malformed)'],
      ['https://caf\u00e9.example', '(malformed)'],
    ] as const;

    for (const [origin, printed] of cases) {
      await ask(protocol, port, 'POST', '/hello', { headers: { origin } });
      warnings.flush();
      assert.deepEqual(
        logged.splice(0).map((line) => line['origin']),
        [printed],
      );
    }
  });

  test(`a page of Herald's own host is not reported as refused over ${protocol}`, async (t) => {
    const { port, lines } = await startHttp(t, routes);
    const own = { origin: `${scheme}://127.0.0.1:${port}` };
    const behindProxy = { origin: 'https://app.example', 'sec-fetch-site': 'same-origin' };

    for (const headers of [own, behindProxy]) {
      await ask(protocol, port, 'POST', '/hello', { headers });
    }

    assert.deepEqual(
      lines.filter(({ level }) => level === 'warn'),
      [],
    );
  });

  test(`a listed origin that calls a path for servers is logged with the reason over ${protocol}`, async (t) => {
    const { port, lines } = await startHttp(t, routes, { corsOrigins: [listedOrigin] });

    await ask(protocol, port, 'POST', '/publish', { headers: { origin: listedOrigin } });

    const { origin, reason } = lines.find(({ phrase }) => phrase === 'origin refused') ?? {};
    assert.deepEqual([origin, reason], [listedOrigin, 'the path is for servers']);
  });
}
