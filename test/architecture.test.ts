import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, posix, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * The layers, lowest first. A file may import its own folder and lower layers; folders of one layer
 * do not import each other. See ARCHITECTURE.md.
 */
const layers: readonly (readonly string[])[] = [
  ['clock', 'create-folder', 'errors', 'metrics', 'version'],
  ['logging'],
  ['util'],
  ['events'],
  ['config'],
  ['certificates', 'http', 'workers', 'db'],
  ['event-log'],
  ['auth', 'identity', 'stream'],
  ['admin'],
  ['app', 'commands', 'signals'],
  ['server'],
];

/** The files that may import each package and hide it from other files. A new package needs a decision. */
const packageOwners: Readonly<Record<string, readonly string[]>> = {
  '@zxcvbn-ts/language-common': ['auth/passwords/common-passwords.ts'],
  argon2: ['auth/jobs.ts'],
  jose: ['identity/issuers/jwt.ts'],
  jsonwebtoken: ['auth/access-token.ts', 'auth/jobs.ts'],
  mariadb: ['db/mariadb/mariadb.ts'],
  pino: ['logging/logger.ts'],
  'pino-pretty': ['logging/logger.ts'],
  'prom-client': ['metrics.ts'],
  postgres: ['db/postgres/client.ts'],
  '@photostructure/sqlite': ['db/sqlite/load.ts'],
  'node:sqlite': ['db/sqlite/load.ts'],
};

/** The only file outside of a folder that may import the folder, by folder. */
const onlyImporters: Readonly<Record<string, string>> = {
  'src/event-log/sql': 'src/event-log/open.ts',
};

const filesPerFolderMax = 20;

interface SourceFile {
  /** For example `src/auth/users.ts`. */
  readonly path: string;
  readonly text: string;
  /** Imported files of the repository, for example `src/db/database.ts`. */
  readonly imports: readonly string[];
  /** Imported packages, for example `pino` and `node:fs`. */
  readonly packages: readonly string[];
}

const files = ['src', 'test', 'bench', 'fixtures'].flatMap(readSourceFiles);
const isTest = (path: string) => path.endsWith('.test.ts');
const product = files.filter(({ path }) => /^src\/.*(?<!\.test)\.ts$/.test(path));

test('the source files and their imports are found', () => {
  const log = files.find(({ path }) => path === 'src/logging/logger.ts');
  const config = files.find(({ path }) => path === 'src/config/config.ts');

  assert.ok(log?.packages.includes('pino'));
  assert.ok(config?.imports.includes('src/logging/logger.ts'));
  assert.ok(files.some(({ path }) => path.startsWith('bench/')));
  assert.ok(files.some(({ path }) => path.startsWith('test/support/')));
});

test('a file imports only its own folder and lower layers', () => {
  assert.deepEqual(
    findImports(product, (path, imported) => !mayImport(path, imported)),
    [],
  );
});

test('every imported file exists', () => {
  const missing = findImports(files, (_, imported) => !existsSync(join(root, imported)));

  assert.deepEqual(missing, []);
});

test('only the files that hide a package import it', () => {
  const violations = product.flatMap(({ path, packages }) =>
    packages.filter((name) => !mayUse(path, name)).map((name) => `${path} -> ${name}`),
  );

  assert.deepEqual(violations, []);
});

test('only the file that opens the event log imports its engines', () => {
  const violations = findImports(product, (path, imported) => {
    const folder = posix.dirname(imported);
    const onlyImporter = onlyImporters[folder];
    return onlyImporter !== undefined && posix.dirname(path) !== folder && path !== onlyImporter;
  });

  assert.deepEqual(violations, []);
});

test('the product, the tests and the benchmarks have no import cycles', () => {
  const importsOf = new Map(files.map(({ path, imports }) => [path, imports]));
  const acyclic = new Set<string>();

  function findCycle(path: string, importers: readonly string[]): readonly string[] | undefined {
    if (importers.includes(path)) return [...importers.slice(importers.indexOf(path)), path];
    if (acyclic.has(path)) return undefined;
    for (const imported of importsOf.get(path) ?? []) {
      const cycle = findCycle(imported, [...importers, path]);
      if (cycle !== undefined) return cycle;
    }
    acyclic.add(path);
    return undefined;
  }

  for (const { path } of files) assert.equal(findCycle(path, [])?.join(' -> '), undefined);
});

test('only the process entry and the commands read the environment', () => {
  const readers = product.filter(({ text }) => /process\.(env|loadEnvFile)\b/.test(text));

  const unexpectedReaders = readers.filter(({ path }) => !/^src\/(server|commands)\b/.test(path));

  assert.deepEqual(
    unexpectedReaders.map(({ path }) => path),
    [],
  );
});

test('there are no barrels and no default exports', () => {
  const violations = product.filter(({ text }) => /^export (\* from|default)\b/m.test(text));

  assert.deepEqual(
    violations.map(({ path }) => path),
    [],
  );
});

test(`a folder holds at most ${filesPerFolderMax} files that are not tests`, () => {
  const counts = new Map<string, number>();
  for (const { path } of files.filter(({ path }) => !isTest(path))) {
    const folder = posix.dirname(path);
    counts.set(folder, (counts.get(folder) ?? 0) + 1);
  }

  const violations = [...counts].filter(([, count]) => count > filesPerFolderMax);

  assert.deepEqual(violations, []);
});

test('every file and folder that ARCHITECTURE.md mentions exists', () => {
  const text = readFileSync(join(root, 'ARCHITECTURE.md'), 'utf8');
  const mentioned = [
    ...text.matchAll(/(?<![\w./-])((?:[\w-]+\/)*[\w-]+\.(?:ts|mjs|md)|(?:[\w-]+\/)+(?=`))/g),
  ]
    .map(([, name = '']) => name)
    .filter((name) => name === name.toLowerCase());

  const missing = mentioned.filter((name) => {
    return !existsSync(join(root, name)) && !existsSync(join(root, 'src', name));
  });

  assert.ok(mentioned.length > 40, `only ${mentioned.length} names were found`);
  assert.deepEqual(missing, []);
});

function findImports(
  sourceFiles: readonly SourceFile[],
  isWrong: (path: string, imported: string) => boolean,
): string[] {
  return sourceFiles.flatMap(({ path, imports }) =>
    imports
      .filter((imported) => isWrong(path, imported))
      .map((imported) => `${path} -> ${imported}`),
  );
}

function mayImport(path: string, imported: string): boolean {
  if (imported === 'fixtures/demo-user.json') return true;
  return getLayerMember(path) === getLayerMember(imported) || getLayer(imported) < getLayer(path);
}

function mayUse(path: string, name: string): boolean {
  const owners = packageOwners[name];
  return owners === undefined
    ? name.startsWith('node:')
    : owners.includes(path.slice('src/'.length));
}

/** Returns the folder of a path in `src/`, or the name of a file directly in `src/`: `app`, `server`. */
function getLayerMember(path: string): string {
  return (path.split('/')[1] ?? '').replace(/\.ts$/, '');
}

function getLayer(path: string): number {
  const layer = layers.findIndex((members) => members.includes(getLayerMember(path)));
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
  // `from '…'`, `import '…'`, `import('…')`, `require('…')`, and `new URL('./…')` for a thread's entry.
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

/** Returns whether an import is source code. `new URL('../package.json', …)`, for example, is data. */
function isCode(name: string): boolean {
  return /\.(js|ts)$/.test(name) && !name.includes('/dist/');
}

function resolveImport(from: string, name: string): string {
  const path = posix.normalize(posix.join(posix.dirname(from), name)).replace(/\.(js|ts)$/, '');
  const typescriptPath = `${path}.ts`;
  return existsSync(join(root, typescriptPath)) || !existsSync(join(root, `${path}.js`))
    ? typescriptPath
    : `${path}.js`;
}

function getPackageName(name: string): string {
  if (name.startsWith('node:')) return name;
  return name
    .split('/')
    .slice(0, name.startsWith('@') ? 2 : 1)
    .join('/');
}
