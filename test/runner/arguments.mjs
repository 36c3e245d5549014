// The command line of `npm test`.
import { spawnSync } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { isAbsolute, relative } from 'node:path';
import { formatHelp } from './help.mjs';

/** Options of the runner itself, except `--help`; each takes a value and may be repeated. */
const ownOptions = ['--without', '--in', '--minutes', '--file-minutes'];

/**
 * Separates path filters from options. The value of an option may follow a space or an equals sign. Exits
 * with code 1 when a value is missing or invalid, and with code 0 after it has printed the help.
 *
 * @param {readonly string[]} args
 * @param {string} root The folder of the project: paths of test files are relative to it.
 */
export function parseArguments(args, root) {
  const ownValues = Object.fromEntries(ownOptions.map((name) => [name, []]));
  const filters = [];
  const options = []; // For `node --test`.
  const namePatterns = [];
  const remaining = [...args];
  let valueOptions;
  while (remaining.length > 0) {
    const arg = remaining.shift();
    const [name, value] = split(arg);
    if (arg === '--help' || arg === '-h') {
      console.log(formatHelp());
      process.exit(0);
    } else if (ownOptions.includes(name)) {
      ownValues[name].push(value ?? takeValue(name, remaining));
    } else if (!arg.startsWith('-')) {
      filters.push(arg);
    } else {
      options.push(arg);
      valueOptions ??= readValueOptions();
      if (valueOptions.has(arg)) options.push(takeValue(arg, remaining));
      if (name === '--test-name-pattern') namePatterns.push(value ?? options.at(-1));
    }
  }
  return {
    filters: filters.map((filter) => toPathPart(filter, root)),
    options,
    namePatterns,
    without: ownValues['--without'].map((filter) => toPathPart(filter, root)),
    folders: ownValues['--in'],
    minutes: readMinutes('--minutes', ownValues),
    fileMinutes: readMinutes('--file-minutes', ownValues),
  };
}

function readMinutes(name, ownValues) {
  const value = ownValues[name].at(-1);
  if (value !== undefined && !(Number(value) > 0)) refuse(`${name} needs a positive number`);
  return value === undefined ? undefined : Number(value);
}

/** Accepts the forms in which shells and editors write a path: `./test/run`, `/home/me/herald/test/run`. */
function toPathPart(filter, root) {
  if (/[*?[{]|:\d+$/.test(filter)) {
    refuse(`a filter is a part of the path, no patterns or line numbers: ${filter}`);
  }
  if (!isAbsolute(filter)) return filter.replace(/^(\.\/)+/, '');
  return relative(root, existsSync(filter) ? realpathSync(filter) : filter);
}

/** @param {string} arg */
function split(arg) {
  const index = arg.indexOf('=');
  return index === -1 ? [arg, undefined] : [arg.slice(0, index), arg.slice(index + 1)];
}

function takeValue(name, remaining) {
  return remaining.length > 0 ? remaining.shift() : refuse(`${name} needs a value`);
}

/**
 * Prints why the tests cannot run and exits with code 1.
 *
 * @param {string} why
 */
export function refuse(why) {
  console.error(`Cannot run tests: ${why}`);
  process.exit(1);
}

/** Returns whether the packages that run the tests are installed. */
export function hasPackages() {
  try {
    import.meta.resolve('tsx');
    return true;
  } catch {
    return false; // Resolution fails only when the package is missing.
  }
}

/** Returns the options of this Node that take a value; its help lists them as `-r, --require=...`. */
function readValueOptions() {
  const { stdout } = spawnSync(process.execPath, ['--help'], { encoding: 'utf8' });
  const lines = stdout.matchAll(/^ +(?:(-\w), )?(--[\w-]+)=/gm);
  return new Set([...lines].flatMap(([, short, long]) => (short ? [short, long] : [long])));
}
