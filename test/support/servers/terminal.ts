import { spawnSync } from 'node:child_process';

/** Whether `onTerminal` works on this machine. */
export const hasTerminals = spawnSync('script', ['--version']).error === undefined;

/** Returns a command line that runs `command` on a new terminal and exits with its code. */
export function onTerminal(command: readonly string[]): [string, ...string[]] {
  const quoted = command.map((word) => `'${word.replaceAll("'", `'\\''`)}'`);
  // `exec`, because otherwise Ctrl-C ends the shell in between, with the shell's exit code.
  return ['script', '-qec', `exec ${quoted.join(' ')}`, '/dev/null'];
}
