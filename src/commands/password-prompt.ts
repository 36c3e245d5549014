import { stderr, stdin } from 'node:process';
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { CommandError } from './command.js';

const pipedBytesMax = 4096;

/**
 * Reads a new password: at a terminal prompts twice without echo, otherwise reads the first line of
 * standard input. A password is never a command-line argument, because process lists and shell
 * histories show arguments.
 *
 * Throws a `CommandError` at a terminal when the two entries differ, on Ctrl-C and at the end of the
 * input; otherwise when the line is empty or more than 4,096 bytes were read.
 */
export async function readNewPassword(): Promise<string> {
  if (!stdin.isTTY) return readFirstLine();
  const [first, second] = await promptHidden(['Password: ', 'Again: ']);
  if (first !== second) throw new CommandError('Cannot set password: the two entries differ');
  return first ?? '';
}

async function readFirstLine(): Promise<string> {
  stdin.setEncoding('utf8');
  let text = '';
  for await (const chunk of stdin) {
    text += chunk;
    if (text.includes('\n') || Buffer.byteLength(text) > pipedBytesMax) break;
  }
  if (Buffer.byteLength(text) > pipedBytesMax) {
    throw new CommandError(`Cannot read password: longer than ${pipedBytesMax} bytes`);
  }
  const [line = ''] = text.split(/\r?\n/);
  if (line === '') throw new CommandError('Cannot read password: standard input is empty');
  return line;
}

/** Reads a line from the terminal for each question, without echo. */
async function promptHidden(questions: readonly string[]): Promise<string[]> {
  // `readline` turns off the echo of the terminal, and its own echo is discarded.
  const discard = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: stdin, output: discard, terminal: true, historySize: 0 });
  lines.on('SIGINT', () => lines.close());
  const typed = lines[Symbol.asyncIterator]();
  try {
    const answers: string[] = [];
    for (const question of questions) {
      stderr.write(question);
      const { value, done } = await typed.next();
      stderr.write('\n');
      if (done === true) throw new CommandError('Cannot read password: interrupted');
      answers.push(value);
    }
    return answers;
  } finally {
    lines.close();
  }
}
