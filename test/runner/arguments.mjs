// The command line of `npm test`.
import { spawnSync } from 'node:child_process';

/** Options of the runner itself; each takes a value and may be repeated. */
const ownOptions = ['--without', '--in', '--minutes', '--file-minutes'];

/**
 * Separates path filters from options. The value of an option may follow after a space or an equals
 * sign. Ends the process when a value is missing or wrong.
 *
 * @param {readonly string[]} args
 */
export function parseArguments(args) {
  const own = Object.fromEntries(ownOptions.map((name) => [name, []]));
  const filters = [];
  const options = []; // For `node --test`.
  const rest = [...args];
  let valueOptions;
  while (rest.length > 0) {
    const arg = rest.shift();
    const [name, value] = split(arg);
    if (ownOptions.includes(name)) {
      own[name].push(value ?? takeValue(name, rest));
    } else if (!arg.startsWith('-')) {
      filters.push(arg);
    } else {
      options.push(arg);
      valueOptions ??= readValueOptions();
      if (valueOptions.has(arg)) options.push(takeValue(arg, rest));
    }
  }
  return {
    filters,
    options,
    without: own['--without'],
    folders: own['--in'],
    minutes: readMinutes('--minutes', own),
    fileMinutes: readMinutes('--file-minutes', own),
  };
}

function readMinutes(name, own) {
  const value = own[name].at(-1);
  if (value !== undefined && !(Number(value) > 0)) refuse(`${name} needs a positive number`);
  return value === undefined ? undefined : Number(value);
}

/** @param {string} arg */
function split(arg) {
  const at = arg.indexOf('=');
  return at === -1 ? [arg, undefined] : [arg.slice(0, at), arg.slice(at + 1)];
}

function takeValue(name, rest) {
  return rest.length > 0 ? rest.shift() : refuse(`${name} needs a value`);
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

/** Returns the options of this Node that take a value, as its help lists them: `-r, --require=...`. */
function readValueOptions() {
  const { stdout } = spawnSync(process.execPath, ['--help'], { encoding: 'utf8' });
  const lines = stdout.matchAll(/^ +(?:(-\w), )?(--[\w-]+)=/gm);
  return new Set([...lines].flatMap(([, short, long]) => (short ? [short, long] : [long])));
}
