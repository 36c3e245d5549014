import { spawnSync } from 'node:child_process';

/** Whether `onTerminal` works on this machine. */
export const hasTerminals = spawnSync('script', ['--version']).error === undefined;

/** Returns a command line that runs `command` on a new terminal and exits with its code. */
export function onTerminal(command: readonly string[]): [string, ...string[]] {
  const quoted = command.map((word) => `'${word.replaceAll("'", `'\\''`)}'`);
  // Without `exec`, Ctrl-C would end the shell in between, and its exit code would be returned.
  return ['script', '-qec', `exec ${quoted.join(' ')}`, '/dev/null'];
}
