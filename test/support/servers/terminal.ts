import { spawnSync } from 'node:child_process';

/** Whether `onTerminal` works on this machine. */
export const hasTerminals = spawnSync('script', ['--version']).error === undefined;

/** The command line that runs another on a terminal of its own, and exits with its code. */
export function onTerminal(command: readonly string[]): [string, ...string[]] {
  const quoted = command.map((word) => `'${word.replaceAll("'", `'\\''`)}'`);
  // By `exec`, or Ctrl-C ends the shell between with a code of its own.
  return ['script', '-qec', `exec ${quoted.join(' ')}`, '/dev/null'];
}
