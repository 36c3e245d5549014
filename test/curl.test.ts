import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { EventCollector } from './support/clients/event-collector.js';
import { type System, startSystem } from './support/servers/system.js';
import { withDeadline } from './support/with-deadline.js';

const noCurl =
  spawnSync('curl', ['--version']).error === undefined ? false : 'curl is not installed';

/** Opens a stream in curl, as in the README, and collects its events. */
class Curl extends EventCollector {
  readonly exitCode: Promise<number | null>;
  readonly kill: () => void;

  constructor(t: TestContext, args: readonly string[]) {
    super();
    const child = spawn('curl', ['--silent', '--show-error', ...args], { stdio: 'pipe' });
    child.stdout.on('data', (bytes: Buffer) => this.feed(bytes));
    this.kill = () => void child.kill();
    this.exitCode = once(child, 'close').then(([code]) => {
      this.end();
      return code as number | null;
    });
    t.after(this.kill);
  }
}

function caArgs(system: System): string[] {
  return ['--cacert', join(system.folder, 'server.cert')];
}

for (const protocol of ['--http2', '--http1.1']) {
  test(`curl ${protocol} -N receives events, resumes, and exits with 0 when the server stops`, {
    skip: noCurl,
  }, async (t) => {
    const system = await startSystem(t);
    const client = await system.connect();
    const url = system.url + (await client.streamPath('ada'));
    const commonArgs = [protocol, '-N', ...caArgs(system)];

    const first = new Curl(t, [...commonArgs, url]);
    await first.opening();
    const seen = await system.publish('ada', 'one\r\ntwo\nthree', { type: 'note' });
    await first.until(() => first.ids.at(-1) === seen || undefined);
    first.kill();
    const missed = await system.publish('ada', { '🐝': '\u2028' });
    const second = new Curl(t, [...commonArgs, '-H', `Last-Event-ID: ${seen}`, url]);
    await second.until(() => second.ids.at(-1) === missed || undefined);
    await system.stop();

    assert.deepEqual(first.dataByType('note'), ['one\ntwo\nthree']);
    assert.deepEqual(second.dataByType('message'), ['{"🐝":"\u2028"}']);
    assert.deepEqual(await second.closing(), { code: 'draining', reconnect: true });
    assert.equal(await withDeadline(second.exitCode, 'the exit of curl'), 0);
  });
}

test('curl gets a response over HTTP/2, over HTTP/1.1 and without ALPN', {
  skip: noCurl,
}, async (t) => {
  const system = await startSystem(t);
  const request = (protocol: string) =>
    new Promise<string>((resolve) => {
      const args = ['-s', '-o', '/dev/null', '-w', '%{http_version} %{response_code}'];
      const child = spawn('curl', [
        ...args,
        protocol,
        ...caArgs(system),
        `${system.url}/health/ready`,
      ]);
      let text = '';
      child.stdout.on('data', (bytes: Buffer) => {
        text += bytes;
      });
      child.once('close', () => resolve(text));
    });

  assert.equal(await request('--http2'), '2 200');
  assert.equal(await request('--http1.1'), '1.1 200');
  assert.equal(await request('--no-alpn'), '1.1 200');
});
