import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const source = join(dirname(fileURLToPath(import.meta.url)), '..', 'src');

/** From the ground up. A file imports its own folder and lower floors; see ARCHITECTURE.md. */
const floors = [['ground'], ['http', 'db', 'workers'], ['auth', 'stream'], ['app', 'commands']];

/** Where a package may be imported: in the files that hide it. Another needs a decision. */
const homes: Readonly<Record<string, readonly string[]>> = {
  argon2: ['auth/jobs.ts'],
  jsonwebtoken: ['auth/access-token.ts', 'auth/jobs.ts'],
  mariadb: ['db/mariadb/mariadb.ts'],
  pino: ['log.ts'],
  'pino-pretty': ['log.ts'],
  'prom-client': ['metrics.ts'],
  postgres: ['db/postgres/client.ts'],
  '@photostructure/sqlite': ['db/sqlite/load.ts'],
  'node:sqlite': ['db/sqlite/load.ts'],
};

interface SourceFile {
  /** As `auth/users.ts`. */
  readonly path: string;
  readonly text: string;
  /** Of the product's own files, as `db/database.ts`. */
  readonly imports: readonly string[];
  /** As `pino`, `node:fs`. */
  readonly packages: readonly string[];
}

const files = readSourceFiles();

test('the source is where this test looks for it', () => {
  assert.ok(files.some(({ path, packages }) => path === 'log.ts' && packages.includes('pino')));
  assert.ok(files.some(({ path, imports }) => path === 'config.ts' && imports.includes('log.ts')));
});

test('a file imports its own folder and lower floors only', () => {
  const wrong = files.flatMap(({ path, imports }) =>
    imports.filter((imported) => !mayImport(path, imported)).map((name) => `${path} -> ${name}`),
  );

  assert.deepEqual(wrong, []);
});

test('an import names a file that exists', () => {
  const paths = files.map(({ path }) => path);
  const wrong = files.flatMap(({ path, imports }) =>
    imports.filter((imported) => !paths.includes(imported)).map((name) => `${path} -> ${name}`),
  );

  assert.deepEqual(wrong, []);
});

test('a package is imported only in the files that hide it', () => {
  const wrong = files.flatMap(({ path, packages }) =>
    packages.filter((name) => !mayUse(path, name)).map((name) => `${path} -> ${name}`),
  );

  assert.deepEqual(wrong, []);
});

test('no file imports itself by a detour', () => {
  const importsOf = new Map(files.map(({ path, imports }) => [path, imports]));
  const sound = new Set<string>(); // Known to lead to no circle.

  function circleFrom(path: string, way: readonly string[]): readonly string[] | undefined {
    if (way.includes(path)) return [...way.slice(way.indexOf(path)), path];
    if (sound.has(path)) return undefined;
    for (const next of importsOf.get(path) ?? []) {
      const circle = circleFrom(next, [...way, path]);
      if (circle !== undefined) return circle;
    }
    sound.add(path);
    return undefined;
  }

  for (const { path } of files) assert.equal(circleFrom(path, [])?.join(' -> '), undefined);
});

test('the environment is read by the process entry and the commands only', () => {
  const readers = files.filter(({ text }) => /process\.(env|loadEnvFile)\b/.test(text));

  const wrong = readers
    .map(({ path }) => path)
    .filter((path) => !/^(server|commands)\b/.test(path));

  assert.deepEqual(wrong, []);
});

test('there are no barrels and no default exports', () => {
  const wrong = files.filter(({ text }) => /^export (\* from|default)\b/m.test(text));

  assert.deepEqual(
    wrong.map(({ path }) => path),
    [],
  );
});

function mayImport(path: string, imported: string): boolean {
  if (roomOf(path) === 'server') return true;
  return roomOf(path) === roomOf(imported) || floorOf(imported) < floorOf(path);
}

function mayUse(path: string, name: string): boolean {
  const home = homes[name];
  return home === undefined ? name.startsWith('node:') : home.includes(path);
}

/** The folder, or for a file beside the folders: `app`, `server`, or else `ground`. */
function roomOf(path: string): string {
  const [room = '', rest] = path.split('/');
  if (rest !== undefined) return room;
  return /^(app|server)\.ts$/.test(path) ? path.slice(0, -3) : 'ground';
}

function floorOf(path: string): number {
  const room = roomOf(path);
  const floor = floors.findIndex((rooms) => rooms.includes(room));
  assert.ok(
    floor >= 0 || room === 'server',
    `${path} stands on no floor: add ${room}/ to the list`,
  );
  return floor >= 0 ? floor : floors.length;
}

function readSourceFiles(): SourceFile[] {
  return readdirSync(source, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /(?<!\.test)\.ts$/.test(entry.name))
    .map((entry) => relative(source, join(entry.parentPath, entry.name)).replaceAll('\\', '/'))
    .map(readSourceFile);
}

function readSourceFile(path: string): SourceFile {
  const text = readFileSync(join(source, path), 'utf8');
  // `from '…'`, `import '…'`, `import('…')`, `require('…')`, and the entry of a thread.
  const pattern = /(?:\bfrom|\bimport|\b(?:import|require)\(|\bnew URL\((?='\.))\s*'([^']+)'/g;
  const names = [...withoutComments(text).matchAll(pattern)].map(([, name = '']) => name);
  const isOurs = (name: string) => name.startsWith('.');
  return {
    path,
    text,
    imports: names
      .filter(isOurs)
      .filter(isCode)
      .map((name) => resolveImport(path, name)),
    packages: names.filter((name) => !isOurs(name)).map(packageOf),
  };
}

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*$/gm, '');
}

/** `new URL('../package.json', …)` and the like are data; `./source-thread.mjs` has no imports. */
function isCode(name: string): boolean {
  return !/\.(json|mjs)$/.test(name) && !name.endsWith('/');
}

function resolveImport(from: string, name: string): string {
  const path = posix.normalize(posix.join(posix.dirname(from), name)).replace(/\.(js|ts)$/, '');
  return `${path}.ts`;
}

function packageOf(name: string): string {
  if (name.startsWith('node:')) return name;
  return name
    .split('/')
    .slice(0, name.startsWith('@') ? 2 : 1)
    .join('/');
}
