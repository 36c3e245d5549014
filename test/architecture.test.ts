import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, posix, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * From the ground up. A file imports its own folder and lower layers; folders of one layer do not
 * know each other. See ARCHITECTURE.md.
 */
const layers: readonly (readonly string[])[] = [
  ['clock', 'errors', 'metrics', 'version'],
  ['logging'],
  ['util'],
  ['config'],
  ['http', 'workers', 'db', 'events'],
  ['event-log'],
  ['auth', 'identity', 'stream'],
  ['app', 'commands', 'signals'],
  ['server'],
];

/** Where a package may be imported: in the files that hide it. Another needs a decision. */
const packageOwners: Readonly<Record<string, readonly string[]>> = {
  argon2: ['auth/jobs.ts'],
  jsonwebtoken: ['auth/access-token.ts', 'auth/jobs.ts'],
  mariadb: ['db/mariadb/mariadb.ts'],
  pino: ['logging/logger.ts'],
  'pino-pretty': ['logging/logger.ts'],
  'prom-client': ['metrics.ts'],
  postgres: ['db/postgres/client.ts'],
  '@photostructure/sqlite': ['db/sqlite/load.ts'],
  'node:sqlite': ['db/sqlite/load.ts'],
};

/** Folders that one file outside of them may import: what they hold is hidden behind it. */
const fronts: Readonly<Record<string, string>> = {
  'src/event-log/sql': 'src/event-log/open.ts',
};

const filesPerFolderMax = 20;

interface SourceFile {
  /** As `src/auth/users.ts`. */
  readonly path: string;
  readonly text: string;
  /** Files of the repository, as `src/db/database.ts`. */
  readonly imports: readonly string[];
  /** As `pino`, `node:fs`. */
  readonly packages: readonly string[];
}

const files = ['src', 'test', 'bench', 'fixtures'].flatMap(readSourceFiles);
const isTest = (path: string) => path.endsWith('.test.ts');
const product = files.filter(({ path }) => /^src\/.*(?<!\.test)\.ts$/.test(path));

test('the source files are found, with their imports', () => {
  const log = files.find(({ path }) => path === 'src/logging/logger.ts');
  const config = files.find(({ path }) => path === 'src/config/config.ts');

  assert.ok(log?.packages.includes('pino'));
  assert.ok(config?.imports.includes('src/logging/logger.ts'));
  assert.ok(files.some(({ path }) => path.startsWith('bench/')));
  assert.ok(files.some(({ path }) => path.startsWith('test/support/')));
});

test('a file imports its own folder and lower layers only', () => {
  assert.deepEqual(
    importsThat(product, (path, imported) => !mayImport(path, imported)),
    [],
  );
});

test('an import names a file that exists', () => {
  const missing = importsThat(files, (_, imported) => !existsSync(join(root, imported)));

  assert.deepEqual(missing, []);
});

test('a package is imported only in the files that hide it', () => {
  const wrong = product.flatMap(({ path, packages }) =>
    packages.filter((name) => !mayUse(path, name)).map((name) => `${path} -> ${name}`),
  );

  assert.deepEqual(wrong, []);
});

test('an engine of the event log is known to the file that opens the event log, and to no other', () => {
  const wrong = importsThat(product, (path, imported) => {
    const folder = posix.dirname(imported);
    const front = fronts[folder];
    return front !== undefined && posix.dirname(path) !== folder && path !== front;
  });

  assert.deepEqual(wrong, []);
});

test('no file imports itself by way of others, in the product, the tests and the benchmarks', () => {
  const importsOf = new Map(files.map(({ path, imports }) => [path, imports]));
  const acyclic = new Set<string>();

  function findCycle(path: string, way: readonly string[]): readonly string[] | undefined {
    if (way.includes(path)) return [...way.slice(way.indexOf(path)), path];
    if (acyclic.has(path)) return undefined;
    for (const next of importsOf.get(path) ?? []) {
      const cycle = findCycle(next, [...way, path]);
      if (cycle !== undefined) return cycle;
    }
    acyclic.add(path);
    return undefined;
  }

  for (const { path } of files) assert.equal(findCycle(path, [])?.join(' -> '), undefined);
});

test('the environment is read by the process entry and the commands only', () => {
  const readers = product.filter(({ text }) => /process\.(env|loadEnvFile)\b/.test(text));

  const wrong = readers.filter(({ path }) => !/^src\/(server|commands)\b/.test(path));

  assert.deepEqual(
    wrong.map(({ path }) => path),
    [],
  );
});

test('there are no barrels and no default exports', () => {
  const wrong = product.filter(({ text }) => /^export (\* from|default)\b/m.test(text));

  assert.deepEqual(
    wrong.map(({ path }) => path),
    [],
  );
});

test(`a folder holds at most ${filesPerFolderMax} files that are not tests`, () => {
  const counts = new Map<string, number>();
  for (const { path } of files.filter(({ path }) => !isTest(path))) {
    const folder = posix.dirname(path);
    counts.set(folder, (counts.get(folder) ?? 0) + 1);
  }

  const wrong = [...counts].filter(([, count]) => count > filesPerFolderMax);

  assert.deepEqual(wrong, []);
});

test('every file and folder that ARCHITECTURE.md names exists', () => {
  const text = readFileSync(join(root, 'ARCHITECTURE.md'), 'utf8');
  const named = [
    ...text.matchAll(/(?<![\w./-])((?:[\w-]+\/)*[\w-]+\.(?:ts|mjs|md)|(?:[\w-]+\/)+(?=`))/g),
  ]
    .map(([, name = '']) => name)
    .filter((name) => name === name.toLowerCase());

  const missing = named.filter((name) => {
    return !existsSync(join(root, name)) && !existsSync(join(root, 'src', name));
  });

  assert.ok(named.length > 40, `only ${named.length} names were found`);
  assert.deepEqual(missing, []);
});

function importsThat(
  among: readonly SourceFile[],
  isWrong: (path: string, imported: string) => boolean,
): string[] {
  return among.flatMap(({ path, imports }) =>
    imports.filter((imported) => isWrong(path, imported)).map((name) => `${path} -> ${name}`),
  );
}

function mayImport(path: string, imported: string): boolean {
  if (imported === 'fixtures/demo-user.json') return true;
  return partOf(path) === partOf(imported) || layerOf(imported) < layerOf(path);
}

function mayUse(path: string, name: string): boolean {
  const home = packageOwners[name];
  return home === undefined ? name.startsWith('node:') : home.includes(path.slice('src/'.length));
}

/** The folder below `src/`, or for a file beside the folders its name: `app`, `server`. */
function partOf(path: string): string {
  return (path.split('/')[1] ?? '').replace(/\.ts$/, '');
}

function layerOf(path: string): number {
  const layer = layers.findIndex((parts) => parts.includes(partOf(path)));
  assert.ok(layer >= 0, `${path} is in no layer: add it to the list`);
  return layer;
}

function readSourceFiles(folder: string): SourceFile[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /(?<!\.d)\.(ts|mjs)$/.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).replaceAll('\\', '/'))
    .filter((path) => !path.includes('node_modules/'))
    .map(readSourceFile);
}

function readSourceFile(path: string): SourceFile {
  const text = readFileSync(join(root, path), 'utf8');
  // `from '…'`, `import '…'`, `import('…')`, `require('…')`, and the entry of a thread.
  const pattern = /(?:\bfrom|\bimport|\b(?:import|require)\(|\bnew URL\((?='\.))\s*'([^'\n]+)'/g;
  const names = [...withoutComments(text).matchAll(pattern)].map(([, name = '']) => name);
  const isRelative = (name: string) => name.startsWith('.');
  return {
    path,
    text,
    imports: names
      .filter(isRelative)
      .filter(isCode)
      .map((name) => resolveImport(path, name)),
    packages: names.filter((name) => !isRelative(name)).map(getPackageName),
  };
}

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*$/gm, '');
}

/** Whether an import is source code: `new URL('../package.json', …)` and the like are data. */
function isCode(name: string): boolean {
  return /\.(js|ts)$/.test(name) && !name.includes('/dist/');
}

function resolveImport(from: string, name: string): string {
  const path = posix.normalize(posix.join(posix.dirname(from), name)).replace(/\.(js|ts)$/, '');
  const typed = `${path}.ts`;
  return existsSync(join(root, typed)) || !existsSync(join(root, `${path}.js`))
    ? typed
    : `${path}.js`;
}

function getPackageName(name: string): string {
  if (name.startsWith('node:')) return name;
  return name
    .split('/')
    .slice(0, name.startsWith('@') ? 2 : 1)
    .join('/');
}
