// Compiles `src` and `test` once per run. Threads and server processes start from the build, because from source
// each of them would first start `tsx`, which took most of the processor time of a whole run.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { refuse } from './arguments.mjs';

/**
 * Compiles into a new folder, which looks like the folder of the project to the compiled files, and returns the
 * folder. Exits with code 1 when a file cannot be compiled. Types are not checked: `npm run check` does that.
 *
 * @param {string} root The folder of the project.
 * @param {string} folder
 */
export function build(root, folder) {
  mkdirSync(folder);
  for (const entry of ['docs', 'fixtures', 'node_modules', 'package.json']) {
    symlinkSync(join(root, entry), join(folder, entry));
  }
  const config = {
    extends: join(root, 'tsconfig.json'),
    compilerOptions: {
      ...{ noEmit: false, noCheck: true, rootDir: root, outDir: folder },
      ...{ inlineSourceMap: true, sourceRoot: pathToFileURL(root).href },
    },
    include: ['src', 'test'].map((name) => join(root, name)),
  };
  const configFile = join(folder, 'tsconfig.json');
  writeFileSync(configFile, JSON.stringify(config));
  const args = [join(root, 'node_modules/typescript/bin/tsc'), '-p', configFile];
  const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) refuse(`the source cannot be compiled\n${stdout}`);
  cpSync(join(root, 'src/openapi.json'), join(folder, 'src/openapi.json'));
  return folder;
}
