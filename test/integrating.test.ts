import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { loadConfig } from '../src/config/config.js';
import { Failure, type FailureName } from '../src/errors.js';
import { browserGlobals } from './support/clients/browser-globals.js';
import { findChromium, openPage } from './support/clients/chromium.js';
import { freePort } from './support/free-port.js';
import { recordSecret } from './support/recording/record.js';
import { ca } from './support/servers/certificate.js';
import { startProvider } from './support/servers/identity-provider.js';
import { runSource, waitForExit } from './support/servers/process.js';
import { Script, scriptFolder } from './support/servers/script.js';
import { type System, startSystem } from './support/servers/system.js';
import { until } from './support/until.js';

const page = readFileSync(new URL('../docs/integrating.md', import.meta.url), 'utf8');
const chromium = findChromium();

/** Returns the only code block of docs/integrating.md that contains `text`. */
function findBlock(text: string): string {
  const blocks = [...page.matchAll(/^```\w+\n([\s\S]*?)\n```$/gm)].map(([, code = '']) => code);
  const [block, ...others] = blocks.filter((code) => code.includes(text));
  assert.ok(block !== undefined && others.length === 0, `not one block with ${text}`);
  return block;
}

const listenBlocks = ['async function listen()', 'async function extendStream'].map(findBlock);
const ticketPage = [findBlock("fetch('/event-ticket'"), ...listenBlocks].join('\n');
const jwtPage = [
  "const herald = 'https://localhost:9001';",
  ...[findBlock('await getJwt()'), ...listenBlocks],
].join('\n');

/** Functions that docs/integrating.md leaves to its readers. They print their calls. */
const printers = `
  function showLogin() { console.log('login page'); }
  async function loadOrders() { console.log('orders loaded'); }
  function showShipped({ order }) { console.log('shipped ' + order); }`;

const post = (path: string, body: object = {}) => {
  const init = {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  };
  return `fetch('${path}', ${JSON.stringify(init)}).then(({ status }) => console.log('${path} ' + status))`;
};
const logIn = `${post('/login', { name: 'ada', password: 'a quiet river' })}.then(start)`;
const logInAsBob = `${post('/login', { name: 'bob', password: 'a loud sea' })}.then(start)`;

/** Starts a Herald that allows the origin of a page and trusts these issuers. `time` sets its clock forward. */
async function startHerald(t: TestContext, folder: string, issuers = '[]') {
  const port = await freePort();
  const origin = `http://localhost:${port}`;
  const time = { aheadMs: 0 };
  const issuersFile = join(folder, 'issuers.json');
  writeFileSync(issuersFile, issuers);
  writeFileSync(join(folder, 'ca.pem'), ca);
  const system = await startSystem(t, {
    env: { CORS_ORIGINS: origin, ...(issuers !== '[]' && { TRUSTED_ISSUERS_FILE: issuersFile }) },
    wallClock: () => Date.now() + time.aheadMs,
  });
  const replaceUrls = (source: string) =>
    source
      .replaceAll('https://localhost:9001', system.url)
      .replaceAll('5000 + 5000 * Math.random()', '50')
      .replaceAll('listen(3000)', `listen(${port}, () => console.log('listening'))`);
  const scriptEnv = { NODE_EXTRA_CA_CERTS: join(folder, 'ca.pem'), ORIGIN: origin };
  const run = (name: string, source: string, moreEnv: Readonly<Record<string, string>> = {}) =>
    Script.start(t, { folder, name, source: replaceUrls(source) }, { ...scriptEnv, ...moreEnv });
  const openPageWith = (code: string) =>
    run('page.mjs', `${browserGlobals}\n${printers}\n${code}\nconsole.log('page ready');`);
  return { system, folder, origin, time, replaceUrls, run, openPageWith };
}

/** Creates the API key of the first recipe with the command of the recipe. */
async function createKey({ folder, env }: System): Promise<string> {
  const block = findBlock('npm run --silent key').replaceAll('\\\n', '');
  const [, args = ''] = /key -- (.*)\)/.exec(block) ?? [];
  const { out, err } = await runSource('commands/key.ts', args.split(/\s+/), { cwd: folder, env });
  const key = out.trim();
  assert.match(key, /^hk_/, err);
  recordSecret(key);
  return key;
}

/** Starts Herald and the backend of the first recipe. */
async function startShop(t: TestContext) {
  const herald = await startHerald(t, scriptFolder(t));
  const key = await createKey(herald.system);
  const publicFolder = join(herald.folder, 'public');
  mkdirSync(publicFolder);
  writeFileSync(join(publicFolder, 'index.html'), '<!doctype html><script src="page.js"></script>');
  writeFileSync(join(publicFolder, 'page.js'), herald.replaceUrls(`${printers}\n${ticketPage}`));
  const shop = herald.run('shop.mjs', findBlock('// shop.mjs'), { HERALD_KEY: key });
  await shop.waitFor('listening');
  return { ...herald, shop };
}

test('a page of a backend with a session cookie receives events until its user logs out', async (t) => {
  const { system, openPageWith } = await startShop(t);
  const ada = openPageWith(ticketPage);
  const other = openPageWith(ticketPage);

  ada.write(logIn);
  other.write(logIn);
  await Promise.all([ada.waitFor('stream.open'), other.waitFor('stream.open')]);
  await system.post({
    to: { users: ['1'] },
    type: 'order.shipped',
    data: { order: 'of account 1' },
  });
  ada.write(post('/ship', { order: 17 }));
  await Promise.all([ada.waitFor('shipped 17'), other.waitFor('shipped 17')]);
  ada.write(post('/logout'));
  await ada.waitFor('/logout 204');
  await ada.waitFor('login page');
  other.write(post('/ship', { order: 18 }));
  await other.waitFor('shipped 18');

  assert.match(ada.output, /"user":"shop:1"/);
  assert.ok(ada.output.indexOf('orders loaded') < ada.output.indexOf('stream.open'));
  for (const { output } of [ada, other]) assert.doesNotMatch(output, /of account 1/);
  assert.doesNotMatch(ada.output, /shipped 18/);
  ada.write('start()');
  await ada.waitFor('login page', 2);
});

test('a login over the session of another user ends every stream of the earlier login', async (t) => {
  const { system, openPageWith } = await startShop(t);
  const [page, tab] = [openPageWith(ticketPage), openPageWith(ticketPage)];
  page.write(`${logIn}.then(() => console.log('cookie=' + cookie + ';'))`);
  await page.waitFor('cookie=');
  const [, cookie = ''] = /cookie=(.*);/.exec(page.output) ?? [];
  recordSecret(cookie);
  tab.write(`cookie = '${cookie}'; start()`);
  await Promise.all([page.waitFor('stream.open'), tab.waitFor('stream.open')]);

  page.write(logInAsBob);
  await Promise.all([page.waitFor('"user":"shop:2"'), tab.waitFor('login page')]);
  for (const [user, order] of [
    ['shop:1', 18],
    ['shop:2', 19],
  ] as const)
    await system.post({ to: { users: [user] }, type: 'order.shipped', data: { order } });
  await page.waitFor('shipped 19');
  page.write(post('/logout'));
  await page.waitFor('/logout 204');

  for (const { output } of [page, tab]) assert.doesNotMatch(output, /shipped 18/);
  assert.equal(page.output.split('shipped 19').length, 2);
  assert.equal(page.output.split('orders loaded').length, 3);
  const client = await system.connect();
  await until(async () => {
    const { body } = await client.ask('GET', '/v1/streams', { bearer: system.apiKey });
    return (body['items'] as unknown[]).length === 0;
  });
});

test('a page that starts to listen several times has one stream', async (t) => {
  const { system, openPageWith } = await startShop(t);
  const ada = openPageWith(ticketPage);

  ada.write(logIn);
  await ada.waitFor('stream.open');
  ada.write('start(); start(); listen()');
  await ada.waitFor('stream.open', 2);
  ada.write(post('/ship', { order: 17 }));
  await ada.waitFor('shipped 17');
  const client = await system.connect();
  await until(async () => {
    const { body } = await client.ask('GET', '/v1/streams', { bearer: system.apiKey });
    return (body['items'] as unknown[]).length === 1;
  });
  ada.write(post('/ship', { order: 18 }));
  await ada.waitFor('shipped 18');

  for (const text of ['shipped 17', 'shipped 18']) assert.equal(ada.output.split(text).length, 2);
});

test('a request without a JSON body gets 400 from the backend, and a repeated order is shown once', async (t) => {
  const { openPageWith, origin } = await startShop(t);
  const ada = openPageWith(ticketPage);
  ada.write(logIn);
  await ada.waitFor('stream.open');

  const response = await fetch(`${origin}/login`, { method: 'POST' });
  ada.write(
    "fetch('/ship', { method: 'POST' }).then(({ status }) => console.log('empty ' + status))",
  );
  await ada.waitFor('empty 400');
  for (const order of [17, 17, 18]) ada.write(post('/ship', { order }));
  await ada.waitFor('/ship 204', 3);
  await Promise.all([ada.waitFor('shipped 17'), ada.waitFor('shipped 18')]);

  assert.equal(response.status, 400);
  assert.match(await response.text(), /name and password/);
  assert.equal(ada.output.split('shipped 17').length, 2);
});

test('a page gets a new ticket when its stream ends, unless it has extended the stream', async (t) => {
  const { system, openPageWith, time } = await startShop(t);
  const renewing = openPageWith(ticketPage);
  const extending = openPageWith(ticketPage);
  for (const ada of [renewing, extending]) ada.write(logIn);
  await Promise.all([renewing.waitFor('stream.open'), extending.waitFor('stream.open')]);
  renewing.write(post('/ship', { order: 17 }));
  await Promise.all([renewing.waitFor('shipped 17'), extending.waitFor('shipped 17')]);

  time.aheadMs = 600_000;
  extending.write("extendStream(token).then(() => console.log('extended'))");
  await extending.waitFor('extended');
  time.aheadMs = 1_200_000;
  await renewing.waitFor('stream.open', 2);
  await system.post({ to: { users: ['shop:1'] }, type: 'order.shipped', data: { order: 18 } });
  await Promise.all([renewing.waitFor('shipped 18'), extending.waitFor('shipped 18')]);

  assert.match(renewing.output, /"reason":"fresh"[\s\S]*"reason":"resumed"/);
  for (const { output } of [renewing, extending])
    assert.equal(output.split('shipped 17').length, 2);
  assert.equal(extending.output.split('stream.open').length, 2);
});

test('a page whose events may be missing loads its state again', async (t) => {
  const { openPageWith } = await startShop(t);
  const ada = openPageWith(ticketPage);

  ada.write(logIn.replace('.then(start)', ".then(() => { lastEventId = 'lost-1'; listen(); })"));
  await ada.waitFor('stream.open', 2);

  assert.match(ada.output, /"resumed":false[\s\S]*orders loaded[\s\S]*"reason":"fresh"/);
  assert.equal(ada.output.split('orders loaded').length, 2);
});

test('a page gets its ticket as soon as Herald is available again', async (t) => {
  const { system, openPageWith, shop } = await startShop(t);
  const ada = openPageWith(ticketPage);
  await system.stop();

  ada.write(logIn);
  await shop.waitFor('ECONNREFUSED', 2);
  await system.startOnSamePort();

  await ada.waitFor('stream.open');
});

test('a browser receives events with a ticket', {
  skip: chromium === undefined ? 'NO BROWSER: run test/browser.sh as root' : false,
}, async (t) => {
  const { origin } = await startShop(t);
  const ada = await openPage(t, chromium ?? '', origin);
  const shipped = ada.waitForEvent('console', (message) => message.text() === 'shipped 17');

  await ada.evaluate(`${logIn}.then(() => { ${post('/ship', { order: 17 })} })`);
  await shipped;
  const out = ada.waitForEvent('console', (message) => message.text() === 'login page');
  await ada.evaluate(post('/logout'));

  await out;
});

test('in a browser, a login over the session of another user replaces the stream', {
  skip: chromium === undefined ? 'NO BROWSER: run test/browser.sh as root' : false,
}, async (t) => {
  const { system, origin } = await startShop(t);
  const page = await openPage(t, chromium ?? '', origin);
  const shown: string[] = [];
  page.on('console', (message) => shown.push(message.text()));
  const count = (text: string) => shown.filter((line) => line === text).length;
  const ship = async (user: string, order: number) =>
    system.post({ to: { users: [user] }, type: 'order.shipped', data: { order } });

  await page.evaluate(logIn);
  await ship('shop:1', 17);
  await until(() => count('shipped 17') > 0);
  await page.evaluate(logInAsBob);
  await ship('shop:1', 18);
  await ship('shop:2', 19);
  await until(() => count('shipped 19') > 0);
  await page.evaluate('start()');
  await ship('shop:2', 20);
  await until(() => count('shipped 20') > 0);

  const shipped = shown.filter((line) => line.startsWith('shipped'));
  assert.deepEqual(shipped, ['shipped 17', 'shipped 19', 'shipped 20']);
});

test('a page receives events with a JWT that its backend signs, and gets a new one after a disconnect', async (t) => {
  const folder = scriptFolder(t);
  const { code, err } = await runShell(findBlock('openssl genpkey'), folder);
  assert.equal(code, 0, err);
  const issuers = findBlock('"publicKeyFile"').replace('shop.pem', join(folder, 'shop.pem'));
  const { system, openPageWith } = await startHerald(t, folder, issuers);
  writeFileSync(join(folder, 'herald-token.mjs'), findBlock('// herald-token.mjs'));
  const ada = openPageWith(`
    import { createHeraldToken } from './herald-token.mjs';
    const getJwt = async () => createHeraldToken(1, 'phone');
    ${jwtPage}`);
  const disconnect = async (json: object) => {
    const backend = await system.connect();
    return backend.ask('POST', '/v1/disconnect', { bearer: system.apiKey, json });
  };

  ada.write('start()');
  await ada.waitFor('stream.open');
  await disconnect({ user: 'shop:1', sessions: ['phone'], renew: true });
  await ada.waitFor('stream.open', 2);
  await system.post({ to: { users: ['shop:1'] }, type: 'order.shipped', data: { order: 17 } });
  await ada.waitFor('shipped 17');
  await disconnect({ user: 'shop:1' });
  await ada.waitFor('login page');

  assert.match(ada.output, /"user":"shop:1"/);
});

test('a page receives events with a JWT of an OpenID Connect provider', async (t) => {
  const folder = scriptFolder(t);
  const secret = 'the-secret-of-this-test-client';
  const audience = 'https://herald.example.com';
  const issuer = await startProvider(t, { audience, secret });
  const toIssuer = (text: string) => text.replaceAll('https://id.example.com', issuer);
  const caFile = join(folder, 'ca.pem');
  const [entry] = JSON.parse(toIssuer(findBlock('https://id.example.com/jwks')));
  const issuers = JSON.stringify([{ ...entry, caFile }]);
  const { system, openPageWith } = await startHerald(t, folder, issuers);
  const discovered = await runShell(toIssuer(findBlock('openid-configuration')), folder);
  const form = {
    ...{ grant_type: 'client_credentials', client_id: 'page|7', client_secret: secret },
    ...{ resource: audience, scope: 'listen' },
  };
  const ada = openPageWith(`
    const getJwt = async () => {
      const body = new URLSearchParams(${JSON.stringify(form)});
      const response = await request('${issuer}/token', { method: 'POST', body });
      return (await response.json()).access_token;
    };
    ${jwtPage}`);

  ada.write('start()');
  await ada.waitFor('stream.open');
  await system.post({ to: { users: ['id:page|7'] }, type: 'order.shipped', data: { order: 17 } });
  await ada.waitFor('shipped 17');

  assert.equal(discovered.out, `${entry.issuer}\n${entry.jwksUrl}\n`, discovered.err);
});

test('mistakes of a backend get the errors that docs/integrating.md explains', async (t) => {
  const { system } = await startHerald(t, scriptFolder(t));
  const [bearer, client] = [await createKey(system), await system.connect()];
  const [user, tickets] = ['shop:1', '/v1/tickets'];
  const fromPage = { 'sec-fetch-site': 'cross-site' };
  const mistakes = [
    ['POST', tickets, { bearer: 'undefined', json: { user } }, '401 invalid_token'],
    ['POST', tickets, { json: { user } }, '401 bad_credentials'],
    ['POST', tickets, { bearer, json: { user: '1' } }, '403 user_not_allowed user'],
    ['POST', tickets, { bearer, json: { user: 1 } }, '400 invalid_request user'],
    ['POST', tickets, { bearer, json: { user, endsIn: 900 } }, '400 invalid_request endsIn'],
    ['POST', tickets, { bearer, json: { user }, headers: fromPage }, '403 key_in_browser'],
    ['POST', '/v1/events', { bearer, json: { to: 'all', data: 1 } }, '403 user_not_allowed to'],
    ['GET', '/v1/streams', { bearer }, '403 insufficient_scope'],
    ['POST', '/stream/token', { bearer: 'opaque' }, '401 invalid_token'],
  ] as const;

  for (const [method, path, options, expected] of mistakes) {
    const { status, body } = await client.ask(method, path, options);
    const { field } = (body['info'] ?? {}) as { field?: string };
    assert.equal([status, body['name'], field].join(' ').trim(), expected);
    assert.ok(page.includes(`${status} \`${body['name']}\``), expected);
  }
});

test('Herald accepts the entries for identity providers in docs/integrating.md', (t) => {
  const words = ['auth0.com/.well-known', 'sso.example.com', 'supabase.co', '/api/auth/jwks'];
  const entries = words.map(findBlock);
  const file = join(scriptFolder(t), 'issuers.json');
  writeFileSync(file, `[${entries.join(',')}]`);

  const { trustedIssuers } = loadConfig({ TRUSTED_ISSUERS_FILE: file });

  assert.equal(trustedIssuers.issuers.length, 4);
});

test('the errors that docs/integrating.md names exist and have the statuses on that page', () => {
  const errors = [...page.matchAll(/\b(\d{3}) `([a-z_]+)`/g)];
  assert.ok(errors.length > 12);

  for (const [text, status, name] of errors)
    assert.equal(new Failure(name as FailureName, '').status, Number(status), text);
});

function runShell(commands: string, cwd: string) {
  const { PATH = '', HOME = '' } = process.env;
  const env = { PATH, HOME, CURL_CA_BUNDLE: join(cwd, 'ca.pem') };
  const args = ['--norc', '-euo', 'pipefail', '-c', commands];
  return waitForExit(spawn('bash', args, { cwd, env }));
}
