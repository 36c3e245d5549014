import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, existsSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Outcome, tempFolder, waitForExit } from './support/servers/process.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const { scripts, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>;
  version: string;
};

/** The scripts that run built files. */
const builtScripts = Object.keys(scripts).filter((name) => scripts[name]?.includes('bin/run.mjs'));

test('npm scripts run built files only through bin/run.mjs', () => {
  assert.deepEqual(builtScripts.sort(), ['certificate', 'key', 'seed', 'start', 'sync', 'user']);
  assert.equal(Object.values(scripts).join().includes('node dist/'), false);
});

test('without a build, each script says that npm run build is needed', async (t) => {
  const folder = copyProject(t, ['package.json', 'bin']);
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'), 'dir');

  for (const name of builtScripts) {
    const { code, err } = await npm(folder, ['run', name]);

    assert.equal(code, 1, name);
    assert.match(
      err,
      /^Cannot find dist\/[\w/]+\.js: Herald is not built yet; run: npm run build$/m,
    );
    assert.equal(/^\s+at /m.test(err), false, err);
  }
});

test('without installed packages, npm start says that npm ci is needed', async (t) => {
  const folder = copyProject(t, ['package.json', 'bin']);

  const { code, err } = await npm(folder, ['start', '--silent']);

  assert.equal(code, 1);
  assert.equal(err, 'Cannot run server: packages are not installed; run: npm ci\n');
});

test('after a build, scripts pass on arguments and exit codes', async (t) => {
  const configs = ['package.json', 'tsconfig.json', 'tsconfig.build.json'];
  const folder = copyProject(t, [...configs, 'bin', 'src', 'fixtures']);
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'), 'dir');
  const build = await npm(folder, ['run', 'build']);
  assert.equal(build.code, 0, build.err);
  assert.ok(existsSync(join(folder, 'dist/openapi.json')));

  // [arguments of npm, exit code, standard output, standard error]
  const runs = [
    [['start', '--silent', '--', '--version'], 0, `${version}\n`, /^$/],
    [['start', '--', '--no-such'], 2, undefined, /Unknown option '--no-such'/],
    [['start'], 1, undefined, /PORT/],
    [['run', 'user', '--', 'no-such'], 2, undefined, /there is no command 'no-such'/],
    [['run', '--silent', 'user', '--', 'list', '--json'], 1, '', /PORT/],
  ] as const;
  for (const [args, code, out, err] of runs) {
    const outcome = await npm(folder, args, { PORT: 'rubbish' });

    assert.equal(outcome.code, code, `${args.join(' ')}: ${outcome.err}`);
    if (out !== undefined) assert.equal(outcome.out, out);
    assert.match(outcome.err, err);
  }
});

// A package that compiles or downloads its binary in an install script does not work after
// `npm ci --ignore-scripts`.
for (const name of ['argon2', '@photostructure/sqlite']) {
  test(`${name} bundles a binary for every common platform`, () => {
    const platforms = readdirSync(join(root, 'node_modules', name, 'prebuilds'));

    for (const platform of ['linux-x64', 'linux-arm64', 'darwin-arm64', 'win32-x64']) {
      assert.ok(platforms.includes(platform), platform);
    }
  });
}

/** Copies files of the project to a new folder and returns the folder. */
function copyProject(t: TestContext, files: readonly string[]): string {
  const folder = tempFolder(t);
  for (const file of files) cpSync(join(root, file), join(folder, file), { recursive: true });
  return folder;
}

function npm(
  cwd: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Outcome> {
  const { PATH = '', HOME = '' } = process.env;
  const path = `${dirname(process.execPath)}${delimiter}${PATH}`; // `node` is the version of this process.
  const base = { PATH: path, HOME, npm_config_update_notifier: 'false' };
  const child = spawn('npm', args, { cwd, env: { ...base, ...env } });
  child.stdin.end();
  return waitForExit(child);
}
