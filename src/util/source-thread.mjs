// First file of a thread that runs from source: imports the entry module, from the build of the test runner if
// there is one (`test/runner/build.mjs`), because that starts faster. Otherwise registers tsx first.
import { pathToFileURL } from 'node:url';

const [entry = ''] = process.argv.slice(2);
const root = new URL('../..', import.meta.url).href;
const build = process.env['HERALD_TEST_BUILD'];
if (build !== undefined && entry.startsWith(root)) {
  const path = entry.slice(root.length).replace(/\.ts$/, '.js');
  await import(new URL(path, pathToFileURL(`${build}/`)));
} else {
  const { register } = await import('tsx/esm/api');
  register();
  await import(entry);
}
