import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { EventSourceClient } from './support/clients/event-source.js';
import { H2Client } from './support/clients/h2-client.js';
import { freePort } from './support/free-port.js';
import { collectingLog } from './support/recording/collecting-log.js';
import { ca } from './support/servers/certificate.js';
import { tempFolder } from './support/servers/process.js';
import { type System, startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

/** A proxy and how to start it with its recipe in docs/proxies.md. */
interface Proxy {
  readonly name: string;
  /** Language of the code blocks that contain its recipe and, if any, the part for `TLS=off`. */
  readonly language: string;
  readonly versionFlag: string;
  /** Returns the recipe for `TLS=off`. */
  readonly withoutTls: (recipe: string, part: string) => string;
  /** Changes a recipe for `TLS=off` so that the proxy speaks HTTP/2 to Herald. */
  readonly overH2?: (recipe: string) => string;
  /** Completes the recipe to a configuration that writes only to `folder`. */
  readonly wrapConfig: (recipe: string, folder: string) => string;
  readonly args: (config: string, folder: string) => string[];
}

const proxies: readonly Proxy[] = [
  {
    ...{ name: 'nginx', language: 'nginx', versionFlag: '-v' },
    withoutTls: (recipe) =>
      recipe.replaceAll('https://herald', 'http://herald').replaceAll(/^ *proxy_ssl_.*$/gm, ''),
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
    withoutTls: (recipe, part) => recipe.replace(/^backend herald\n[\s\S]*/m, part),
    overH2: (recipe) => recipe.replace(/^ *server one .*/m, '$& proto h2 check-proto h1'),
    // The recipe checks Herald every 2 s, also while Herald is unavailable and after it has restarted.
    wrapConfig: (recipe) =>
      recipe.replace(/^ *server one .*/m, '$& inter 1s fastinter 200ms downinter 200ms'),
    args: (config) => ['-db', '-f', config],
  },
  {
    ...{ name: 'caddy', language: 'caddy', versionFlag: 'version' },
    withoutTls: (recipe, part) => recipe.replace(/^ {2}reverse_proxy [\s\S]*?^ {2}\}\n/m, part),
    overH2: (recipe) => recipe.replace('reverse_proxy ', 'reverse_proxy h2c://'),
    wrapConfig: (recipe) => `{\n admin off\n auto_https disable_redirects\n}\n${recipe}`,
    args: (config) => ['run', '--adapter', 'caddyfile', '--config', config],
  },
];

/** A proxy in front of Herald, and how the two are connected. */
interface Setup {
  readonly proxy: Proxy;
  readonly name: string;
  readonly env: Readonly<Record<string, string>>;
  readonly toRecipe: (recipe: string, part: string) => string;
}

const setups: readonly Setup[] = proxies.flatMap((proxy) => {
  const { name, withoutTls, overH2 } = proxy;
  const plain = { proxy, env: { TRUST_PROXY_HOPS: '1', TLS: 'off' } };
  const setup = { proxy, name, env: { TRUST_PROXY_HOPS: '1' }, toRecipe: (text: string) => text };
  const plainSetup = { ...plain, name: `${name} without TLS`, toRecipe: withoutTls };
  if (overH2 === undefined) return [setup, plainSetup];
  const toRecipe = (recipe: string, part: string) => overH2(withoutTls(recipe, part));
  return [setup, plainSetup, { ...plain, name: `${name} over HTTP/2 without TLS`, toRecipe }];
});

/** Returns the path of the installed program, if any. */
function findProgram({ name, versionFlag }: Proxy): string | undefined {
  const paths = [name, `/usr/sbin/${name}`];
  return paths.find((path) => spawnSync(path, [versionFlag]).status === 0);
}

/** Starts a proxy in front of a system; returns its URL. */
async function openProxy(t: TestContext, setup: Setup, system: System): Promise<string> {
  const { proxy } = setup;
  let end = async () => {};
  t.after(() => end()); // Runs before the folder of the proxy is removed.
  const folder = tempFolder(t);
  const port = await freePort();
  const config = join(folder, 'config');
  writeFileSync(config, proxy.wrapConfig(readRecipe(setup, system, port), folder));
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

function readRecipe({ proxy, toRecipe }: Setup, system: System, port: number): string {
  const docs = readFileSync(new URL('../docs/proxies.md', import.meta.url), 'utf8');
  const blocks = docs.matchAll(new RegExp(`\`\`\`${proxy.language}\n([\\s\\S]*?)\`\`\``, 'g'));
  const [recipe = '', part = ''] = [...blocks].map(([, text = '']) => text);
  const cert = join(system.folder, 'server.cert');
  const key = join(system.folder, 'server.key');
  const certAndKey = join(system.folder, 'both.pem');
  writeFileSync(certAndKey, readFileSync(cert, 'utf8') + readFileSync(key, 'utf8'));
  return toRecipe(recipe, part)
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

/** Connects to a port of this machine from another of its addresses. */
function connectFrom(localAddress: string, port: number): Socket {
  const host = '127.0.0.1';
  const socket = connect({ host, port, localAddress });
  return connectTls({ host, socket, ca, ALPNProtocols: ['h2'] });
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

for (const setup of setups) {
  const { name, env } = setup;
  const isInstalled = findProgram(setup.proxy) !== undefined;
  const skip = isInstalled ? false : `NO ${setup.proxy.name}: run test/programs.sh as root`;

  test(`through ${name}, EventSource resumes after a restart of Herald`, {
    skip,
  }, async (t) => {
    const system = await startSystem(t, { env: { ...env, STREAM_HEARTBEAT: '1000' } });
    const url = await openProxy(t, setup, system);
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

  test(`through ${name}, Herald gets the client's address and accepts 5000 lines`, {
    skip,
  }, async (t) => {
    const system = await startSystem(t, { env });
    const url = await openProxy(t, setup, system);
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

  test(`through ${name}, many short visits do not end the streams of other clients`, {
    skip,
  }, async (t) => {
    const lines: Record<string, unknown>[] = [];
    const log = collectingLog(lines);
    const manyStreams = { MAX_STREAMS_PER_USER: '10000', MAX_STREAMS_PER_IP: '10000' };
    const system = await startSystem(t, { env: { ...env, ...manyStreams }, log });
    const url = await openProxy(t, setup, system);
    const client = await H2Client.connect(url);
    const createConnection = () => connectFrom('127.0.0.2', Number(new URL(url).port));
    const otherClient = await H2Client.connect(url, { createConnection });
    for (const { session } of [client, otherClient]) system.onClose(() => session.destroy());
    const reader = await client.listen('ada');
    const bearer = await otherClient.accessToken('bob');

    const visit = async () => (await otherClient.listenAs(bearer)).abort();
    for (let visits = 0; visits < 500; visits += 10) {
      await Promise.all(Array.from({ length: 10 }, visit));
    }
    await until(() => lines.filter(({ phrase }) => phrase === 'stream closed').length === 500);
    const id = await system.publish('ada', 'still here');
    await reader.until(() => reader.lastId === id || undefined);

    assert.equal(reader.isEnded, false);
  });
}
