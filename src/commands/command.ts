import { lstatSync, readFileSync } from 'node:fs';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { type Config, loadConfig } from '../config/config.js';
import { Failure } from '../errors.js';
import { decodeUtf8 } from '../util/utf8.js';
import { type EnvFile, parseEnvFile } from './env-file.js';

/** Thrown for wrong arguments. `runCommand` prints the message and the usage, and sets exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/**
 * Thrown when a command is impossible in the current state. `runCommand` prints the message and sets exit
 * code 1.
 */
export class CommandError extends Error {
  override readonly name = 'CommandError';
}

/**
 * Runs the command of this process with its arguments and sets the exit code: 0 for success, 1 for
 * a failure, 2 for wrong arguments. `--help` and `-h` print the usage. Never rejects.
 */
export async function runCommand(
  usage: string,
  main: (args: readonly string[]) => Promise<void>,
): Promise<void> {
  // The reader may close the pipe early (`| head`); the command completes nevertheless.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
  const args = process.argv.slice(2);
  if (args.some((arg) => arg === '--help' || arg === '-h')) return print(usage);
  try {
    await main(args);
  } catch (cause) {
    process.exitCode = cause instanceof UsageError ? 2 : 1;
    printError(cause instanceof UsageError ? `${cause.message}\n\n${usage}` : formatError(cause));
  }
}

/** Subcommands by name; each gets the arguments after its name. */
export type Subcommands = Readonly<Record<string, (args: readonly string[]) => Promise<void>>>;

/** Runs the subcommand that the first argument names, in the same way as `runCommand`. */
export function runSubcommand(usage: string, commands: Subcommands): Promise<void> {
  return runCommand(usage, async ([name, ...args]) => {
    if (name === undefined) throw new UsageError('Cannot read arguments: no command is given');
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (command === undefined) {
      throw new UsageError(`Cannot read arguments: there is no command '${name}'`);
    }
    await command(args);
  });
}

/**
 * Parses arguments by a list of options and the names of the positional arguments, which are all
 * required. Returns the options in `values` and the positional arguments by name in `positionals`. Throws a
 * `UsageError` that names the unknown or missing argument.
 */
export function parseArguments<
  Options extends NonNullable<ParseArgsConfig['options']>,
  Name extends string = never,
>(args: readonly string[], options: Options, names: readonly Name[] = []) {
  const { values, positionals } = parseStrictly(args, options);
  const surplus = positionals[names.length];
  const missing = names[positionals.length];
  if (surplus !== undefined)
    throw new UsageError(`Cannot read arguments: unexpected argument '${surplus}'`);
  if (missing !== undefined) throw new UsageError(`Cannot read arguments: needs <${missing}>`);
  const pairs = names.map((name, index) => [name, positionals[index]]);
  // Complete, because `missing` was checked above.
  return { values, positionals: Object.fromEntries(pairs) as Record<Name, string> };
}

function parseStrictly<Options extends NonNullable<ParseArgsConfig['options']>>(
  args: readonly string[],
  options: Options,
) {
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: true });
  } catch (cause) {
    // The first sentence of Node's message names the option; the others are about quoting.
    const reason = cause instanceof Error ? cause.message.split('. ')[0] : String(cause);
    throw new UsageError(`Cannot read arguments: ${reason}`, { cause });
  }
}

/** Loads the settings from the environment and `.env` (see `readEnvironment`). Throws `ConfigError`. */
export function readConfig(): Config {
  const { env, problems } = readEnvironment();
  return loadConfig(env, { alsoCheck: () => problems });
}

/** The environment with the lines of `.env` added, and the problems of these lines. */
export interface Environment {
  readonly env: NodeJS.ProcessEnv;
  readonly hasEnvFile: boolean;
  readonly problems: readonly string[];
}

/** Variables that the C library, libuv and Node read before Herald reads `.env`. */
const readAtStart = [
  'UV_THREADPOOL_SIZE',
  'NODE_OPTIONS',
  'NODE_EXTRA_CA_CERTS',
  'MALLOC_ARENA_MAX',
  'LD_PRELOAD',
];

/**
 * Adds the lines of `.env`, if it exists, to the environment and returns it. A variable of the
 * environment takes precedence unless it is empty, because for a setting an empty value counts as
 * absent. A variable that has no effect in `.env` is not added; it is a problem unless the environment sets
 * it, too. So is each malformed line. Throws when the file exists but cannot be read, because without its settings Herald could take
 * this start for a first start.
 */
export function readEnvironment(): Environment {
  const hasEnvFile = lstatSync('.env', { throwIfNoEntry: false }) !== undefined;
  const file = hasEnvFile ? readEnvFile() : parseEnvFile('');
  const added = [...file.values].filter(([name]) => (process.env[name] ?? '').trim() === '');
  const ineffective = added.map(([name]) => name).filter((name) => readAtStart.includes(name));
  for (const [name, value] of added) {
    if (!readAtStart.includes(name)) process.env[name] = value;
  }
  const ineffectiveProblems = ineffective.map(
    (name) => `${name} has no effect in .env: set it in the environment of the process`,
  );
  const problems = [...file.problems, ...ineffectiveProblems];
  return { env: process.env, hasEnvFile, problems };
}

/** Reads `.env`. `process.loadEnvFile` is not used, because it does not report a folder named `.env`. */
function readEnvFile(): EnvFile {
  let bytes: Buffer;
  try {
    bytes = readFileSync('.env');
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
    throw new CommandError(`Cannot read .env: ${code}`, { cause });
  }
  const text = decodeUtf8(bytes);
  if (text === undefined) throw new CommandError('Cannot read .env: it is not UTF-8 text');
  return parseEnvFile(text);
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function printError(text: string): void {
  process.stderr.write(`${text}\n`);
}

/**
 * Formats an expected error by its message (`Cannot …`) and, unless the input is wrong, the
 * messages of its causes. Anything else is a defect and is formatted with its stack.
 */
export function formatError(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  if (!cause.message.startsWith('Cannot ')) return cause.stack ?? cause.message;
  if (cause instanceof Failure && cause.status < 500) return cause.message;
  const reasons: string[] = [];
  for (let { cause: next } = cause; next instanceof Error; next = next.cause) {
    // When several addresses failed, the message is empty and the first error has the reason.
    const first = next instanceof AggregateError ? next.errors[0] : next;
    if (first instanceof Error && first.message !== '')
      reasons.push(`\n  because: ${first.message}`);
  }
  return cause.message + reasons.join('');
}
