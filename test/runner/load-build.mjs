// Node loads this module before each test file, instead of tsx, which takes longer: the TypeScript files of this
// project are loaded from the build (`build.mjs`). The URLs of the modules stay those of the source.
import { existsSync, readFileSync } from 'node:fs';
import module from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { isMainThread } from 'node:worker_threads';

const root = new URL('../../', import.meta.url).href;
const build = pathToFileURL(`${process.env['HERALD_TEST_BUILD']}/`).href;

/** Returns the compiled file of a module, if it is a TypeScript file of this project and not of a package. */
function findCompiled(url) {
  if (!url.startsWith(root) || !url.endsWith('.ts')) return undefined;
  if (url.includes('/node_modules/')) return undefined; // The build has a link to the packages.
  const file = fileURLToPath(build + url.slice(root.length).replace(/\.ts$/, '.js'));
  return existsSync(file) ? file : undefined;
}

export function resolve(specifier, context, next) {
  if (/^(\.|\/|file:)/.test(specifier)) {
    const { href } = new URL(specifier, context.parentURL);
    const url = href.replace(/\.js$/, '.ts');
    if (findCompiled(url)) return { url, format: 'module', shortCircuit: true };
  }
  return next(specifier, context);
}

export function load(url, context, next) {
  const file = findCompiled(url);
  if (file === undefined) return next(url, context);
  return { format: 'module', source: readFileSync(file, 'utf8'), shortCircuit: true };
}

if (isMainThread) {
  process.setSourceMapsEnabled(true);
  // Up to Node 22.14 hooks run in a thread of their own, which loads this module again.
  if (module.registerHooks) module.registerHooks({ resolve, load });
  else module.register(import.meta.url);
}
