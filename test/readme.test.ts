import assert from 'node:assert/strict';
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { settingNames } from '../src/config/config.js';
import { freePort } from './support/free-port.js';
import { tempFolder, waitForExit } from './support/servers/process.js';
import { withDeadline } from './support/with-deadline.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const noCurl =
  spawnSync('curl', ['--version']).error === undefined ? false : 'curl is not installed';

/** A fresh copy of the project, and the port that replaces 9001. */
interface Clone {
  readonly folder: string;
  readonly port: number;
  /** All processes started in the folder. */
  readonly children: ChildProcessWithoutNullStreams[];
}

test('the commands and snippets of the README work as written', { skip: noCurl }, async (t) => {
  const clone = await makeClone(t);
  const [start = '', ...blocks] = parseCodeBlocks('sh').slice(0, -1); // The last block runs the tests.
  const listenIndex = blocks.findIndex((block) => block.startsWith('curl -N'));
  assert.match(start, /^npm ci && npm start$/);
  assert.ok(listenIndex > 0);

  const server = run(clone, start);
  const welcome = await waitForOutput(server, /data\/publish\.key[\s\S]*\n/);
  assert.match(welcome, new RegExp(`https://localhost:${clone.port}`));

  await t.test('the README commands to log in, listen and publish work', async () => {
    const logIn = blocks.slice(0, listenIndex).join('\n');
    const stream = run(clone, `${logIn}\n${blocks[listenIndex]}`);
    const text = await waitForOutput(stream, /event: stream\.open\ndata: .*\nid: .*\n\n/);
    assert.match(text, /"accessToken":.*"refreshToken":/);
    assert.match(text, /"firstName":"John"/);

    const outcome = await waitForExit(run(clone, blocks.slice(listenIndex + 1).join('\n')));

    assert.equal(outcome.code, 0, outcome.err);
    assert.match(outcome.out, /\{"id":"[^"]+-\d+"\}/);
    assert.match(outcome.out, /event: order\.shipped\ndata: \{"order":17\}\nid: .+-\d+\n/);
    assert.match(
      outcome.out,
      /event: order\.paid\ntopic: orders:17\ndata: \{"order":17\}\nid: .+-\d+\n/,
    );
    assert.match(outcome.out, /\bada\b[\s\S]*Lovelace/);
    assert.match(outcome.out, /\bhk_[0-9a-f]{16}_[\w-]{43}\b/);
    await waitForOutput(stream, /^event: greeting\ndata: \{"hello":"world"\}\nid: .+-\d+\n\n/m);
  });

  for (const [index, name] of ['a browser', 'Node'].entries()) {
    await t.test(`the README snippet for ${name} receives an event`, async () => {
      writeFileSync(
        join(clone.folder, 'listen.mjs'),
        completeSnippet(replacePort(clone.port, parseCodeBlocks('js')[index] ?? '')),
      );
      const ca = join(clone.folder, 'certificate', 'server.cert');
      const env = { NODE_EXTRA_CA_CERTS: ca, ACCESS_TOKEN: await fetchAccessToken(clone) };
      const listener = run(clone, 'exec node listen.mjs', env);
      // The script prints nothing when it connects, so the test publishes until it has received an event.
      let isOver = false;
      const received = waitForOutput(listener, /hello: 'world'/).finally(() => {
        isOver = true;
      });
      const publishUntilReceived = async (): Promise<void> => {
        while (!isOver) await waitForExit(run(clone, blocks[listenIndex + 1] ?? ''));
      };

      await Promise.all([received, publishUntilReceived()]);
    });
  }
});

test('the settings in the README exist and have the defaults of .env.example', () => {
  const envExample = readFileSync(join(root, '.env.example'), 'utf8');
  const knownSettings = settingNames();
  const rows = [...readme.matchAll(/^\| (`[A-Z][^|]*) \| ([^|]*) \|/gm)];
  assert.ok(rows.length > 20);

  for (const [, left = '', right = ''] of rows) {
    const [names, defaults] = [parseCodeSpans(left), parseCodeSpans(right)];
    for (const [index, name] of names.entries()) {
      assert.ok(knownSettings.includes(name), `${name} is not a setting`);
      if (names.length !== defaults.length || defaults[index]?.startsWith('<')) continue;
      assert.match(envExample, new RegExp(`^${name}=${defaults[index]}$`, 'm'));
    }
  }
});

/** Returns the texts between backticks. */
function parseCodeSpans(text: string): string[] {
  return [...text.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code);
}

/** Returns the code blocks of a language, in order. */
function parseCodeBlocks(language: string): string[] {
  const pattern = new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)\\n\`\`\`$`, 'gm');
  return [...readme.matchAll(pattern)].map(([, block = '']) => block);
}

async function makeClone(t: TestContext): Promise<Clone> {
  const children: ChildProcessWithoutNullStreams[] = [];
  t.after(() => Promise.all(children.map(endGroup))); // Runs before the folder is removed.
  const folder = tempFolder(t);
  const configs = ['package.json', 'tsconfig.json', 'tsconfig.build.json'];
  const files = [...configs, 'bin', 'src', 'fixtures'];
  for (const file of files) cpSync(join(root, file), join(folder, file), { recursive: true });
  mkdirSync(join(folder, 'certificate'));
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'), 'dir');
  return { folder, port: await freePort(), children };
}

/** Runs commands of the README in bash, with another port and `npm run build` instead of `npm ci`. */
function run(
  { folder, port, children }: Clone,
  text: string,
  env: Record<string, string> = {},
): ChildProcessWithoutNullStreams {
  const command = replacePort(port, text).replace('npm ci &&', 'npm run build &&');
  const child = spawn('bash', ['--norc', '-euo', 'pipefail', '-c', command], {
    cwd: folder,
    // Creates a process group, so that children of bash end with bash.
    detached: true,
    env: { ...getEnv(), PORT: String(port), DRAIN_TIMEOUT: '1000', ...env },
  });
  child.stdin.end();
  captureOutput(child);
  children.push(child);
  return child;
}

function replacePort(port: number, text: string): string {
  return text.replaceAll('localhost:9001', `localhost:${port}`);
}

function getEnv(): Record<string, string> {
  const { PATH = '', HOME = '' } = process.env;
  const path = `${dirname(process.execPath)}${delimiter}${PATH}`; // `node` is the version of this process.
  return { PATH: path, HOME, npm_config_update_notifier: 'false' };
}

async function endGroup(child: ChildProcessWithoutNullStreams): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const ended = once(child, 'close');
  process.kill(-child.pid, 'SIGINT');
  await ended;
}

/**
 * Functions that return the output of a process so far. Standard error comes last, because curl writes its
 * progress there.
 */
const outputs = new WeakMap<ChildProcessWithoutNullStreams, () => string>();

function captureOutput(child: ChildProcessWithoutNullStreams): void {
  const texts = ['', ''];
  outputs.set(child, () => texts.join('\n'));
  for (const [index, output] of [child.stdout, child.stderr].entries()) {
    output.setEncoding('utf8').on('data', (chunk) => {
      texts[index] += chunk;
    });
  }
}

/** Resolves with the output so far when it matches. Rejects when the process ends first, and after a minute. */
function waitForOutput(child: ChildProcessWithoutNullStreams, pattern: RegExp): Promise<string> {
  const output = new Promise<string>((resolve, reject) => {
    const check = (): void => {
      const text = outputs.get(child)?.() ?? '';
      if (pattern.test(text)) resolve(text);
    };
    child.stdout.on('data', check);
    child.stderr.on('data', check);
    child.once('close', (code) =>
      reject(new Error(`ended with ${code} before ${pattern}: ${outputs.get(child)?.()}`)),
    );
    check();
  });
  return withDeadline(output, () => `output that matches ${pattern}: ${outputs.get(child)?.()}`);
}

/** Adds to the browser's snippet the class and the token that a page provides. Node's snippet is complete. */
function completeSnippet(snippet: string): string {
  if (snippet.includes("from 'eventsource'")) return snippet;
  const importLine = "import { EventSource } from 'eventsource';";
  return `${importLine}\nconst accessToken = process.env.ACCESS_TOKEN;\n${snippet}`;
}

async function fetchAccessToken(clone: Clone): Promise<string> {
  const login = `curl -s --cacert certificate/server.cert https://localhost:9001/login \
    --json '{"username": "test", "password": "test"}'`;
  const { out } = await waitForExit(run(clone, login));
  return JSON.parse(out).accessToken;
}
