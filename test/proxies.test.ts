import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { EventSourceClient } from './support/clients/event-source.js';
import { H2Client } from './support/clients/h2-client.js';
import { freePort } from './support/free-port.js';
import { tempFolder } from './support/servers/process.js';
import { type System, startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

/** A proxy and how to start it with its recipe in docs/proxies.md. */
interface Proxy {
  readonly name: string;
  /** Language of the code block that contains its recipe. */
  readonly language: string;
  readonly versionFlag: string;
  /** Completes the recipe to a configuration that writes only to `folder`. */
  readonly wrapConfig: (recipe: string, folder: string) => string;
  readonly args: (config: string, folder: string) => string[];
}

const proxies: readonly Proxy[] = [
  {
    ...{ name: 'nginx', language: 'nginx', versionFlag: '-v' },
    wrapConfig(recipe, folder) {
      mkdirSync(join(folder, 'temp'));
      const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
        (name) => `${name}_temp_path ${folder}/temp/${name};`,
      );
      return `daemon off; pid ${folder}/pid; worker_processes 1;
        events {}
        http { access_log off; ${temp.join(' ')}
        ${recipe} }`;
    },
    args: (config, folder) => ['-p', folder, '-c', config, '-e', 'stderr'],
  },
  {
    ...{ name: 'haproxy', language: 'haproxy', versionFlag: '-v' },
    wrapConfig: (recipe) => recipe,
    args: (config) => ['-db', '-f', config],
  },
  {
    ...{ name: 'caddy', language: 'caddy', versionFlag: 'version' },
    wrapConfig: (recipe) => `{\n admin off\n auto_https disable_redirects\n}\n${recipe}`,
    args: (config) => ['run', '--adapter', 'caddyfile', '--config', config],
  },
];

/** Returns the path of the installed program, if any. */
function findProgram({ name, versionFlag }: Proxy): string | undefined {
  const paths = [name, `/usr/sbin/${name}`];
  return paths.find((path) => spawnSync(path, [versionFlag]).status === 0);
}

/** Starts a proxy in front of a system; returns its URL. */
async function openProxy(t: TestContext, proxy: Proxy, system: System): Promise<string> {
  let end = async () => {};
  t.after(() => end()); // Runs before the folder of the proxy is removed.
  const folder = tempFolder(t);
  const port = await freePort();
  const config = join(folder, 'config');
  writeFileSync(config, proxy.wrapConfig(readRecipe(proxy, system, port), folder));
  const env = { ...process.env, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
  const child = spawn(findProgram(proxy) ?? '', proxy.args(config, folder), { env });
  let printed = '';
  for (const output of [child.stdout, child.stderr]) {
    output.on('data', (text) => {
      printed += text;
    });
  }
  const closed = once(child, 'close');
  end = async () => {
    child.kill();
    await closed;
  };
  await until(() => {
    if (child.exitCode !== null) throw new Error(`${proxy.name} did not start: ${printed}`);
    return isListening(port);
  });
  return `https://127.0.0.1:${port}`;
}

function readRecipe({ language }: Proxy, system: System, port: number): string {
  const docs = readFileSync(new URL('../docs/proxies.md', import.meta.url), 'utf8');
  const [, text = ''] = new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``).exec(docs) ?? [];
  const cert = join(system.folder, 'server.cert');
  const key = join(system.folder, 'server.key');
  const certAndKey = join(system.folder, 'both.pem');
  writeFileSync(certAndKey, readFileSync(cert, 'utf8') + readFileSync(key, 'utf8'));
  return text
    .replaceAll('127.0.0.1:9001', new URL(system.url).host)
    .replace('listen 443', `listen 127.0.0.1:${port}`)
    .replace('bind :443', `bind 127.0.0.1:${port}`)
    .replace('events.example.com {', `https://127.0.0.1:${port} {`)
    .replace('/etc/ssl/events.example.com.pem', certAndKey)
    .replace('/etc/ssl/events.example.com.cert', cert)
    .replace('/etc/ssl/events.example.com.key', key)
    .replace('/etc/herald/server.cert', cert)
    .replace('retry: 5000', 'retry: 100');
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

for (const proxy of proxies) {
  const isInstalled = findProgram(proxy) !== undefined;
  const skip = isInstalled ? false : `NO ${proxy.name}: run test/programs.sh as root`;

  test(`through ${proxy.name}, EventSource resumes after a restart of Herald`, {
    skip,
  }, async (t) => {
    const system = await startSystem(t, {
      env: { TRUST_PROXY_HOPS: '1', STREAM_HEARTBEAT: '1000' },
    });
    const url = await openProxy(t, proxy, system);
    const client = await H2Client.connect(url);
    system.onClose(() => client.destroy());
    const page = new EventSourceClient(url + (await client.streamPath('ada')));
    system.onClose(() => page.source.close());
    await page.waitForOpenings(1);
    const first = await system.publish('ada', 'before');
    await page.until(() => page.ids.at(-1) === first || undefined);
    const bobStream = await client.listen('bob');
    await bobStream.until(() => bobStream.comments >= 1 || undefined); // Heartbeats are not buffered.

    await system.stop();
    await page.until(() =>
      page.dataByType('stream.close').find((data) => JSON.parse(data).code === 'refused'),
    );
    const unavailable = await client.ask('GET', '/stream/live');
    await system.startOnSamePort();
    await page.waitForOpenings(2);
    const second = await system.publish('ada', 'after');
    await page.until(() => page.ids.at(-1) === second || undefined);

    assert.deepEqual(page.dataByType('message'), ['before', 'after']);
    assert.deepEqual(page.openings[1], { resumed: true, reason: 'resumed', id: first });
    assert.equal(unavailable.status, 503);
    assert.equal(unavailable.headers['retry-after'], '5');
  });

  test(`through ${proxy.name}, Herald gets the client's address and accepts 5000 lines`, {
    skip,
  }, async (t) => {
    const system = await startSystem(t, { env: { TRUST_PROXY_HOPS: '1' } });
    const url = await openProxy(t, proxy, system);
    const client = await H2Client.connect(url);
    system.onClose(() => client.destroy());

    const bearer = await client.accessToken('ada');
    const { body: echo } = await client.ask('GET', '/anything', {
      bearer,
      headers: { 'x-forwarded-for': '203.0.113.9' },
    });
    const lines = Array.from({ length: 5000 }, () => '{"to":"all","data":"x"}\n').join('');
    const { status, body } = await client.ask('POST', '/events', {
      bearer: system.apiKey,
      headers: { 'content-type': 'application/x-ndjson' },
      body: lines,
    });

    assert.equal(echo['ip'], '127.0.0.1');
    assert.equal(status, 201);
    assert.equal(body['published'], 5000);
  });
}
