import { stderr, stdin } from 'node:process';
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { CommandError } from './command.js';

const pipedBytesMax = 4096;

/**
 * A new password: asked for twice and without echo at a terminal, else the first line of standard
 * input. Never an argument, for those are seen in lists of processes and in the shell's history.
 *
 * Throws `CommandError` when the two differ, when nothing comes, or on Ctrl-C.
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

/** One line of the terminal for each question; what is typed is not shown. */
async function promptHidden(questions: readonly string[]): Promise<string[]> {
  // A terminal read by `readline` has no echo of its own, and the echo of `readline` goes nowhere.
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
