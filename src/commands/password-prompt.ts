import { stderr, stdin } from 'node:process';
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { decodeUtf8 } from '../util/utf8.js';
import { CommandError } from './command.js';

const lineBytesMax = 4096;

/**
 * Reads a new password: at a terminal prompts twice without echo, otherwise reads the first line of
 * standard input. A password is never a command-line argument, because process lists and shell
 * histories show arguments.
 *
 * Throws a `CommandError` at a terminal when the two entries differ, on Ctrl-C and at the end of the
 * input; otherwise when the line is empty or longer than 4,096 bytes; and when it is not UTF-8. A byte
 * order mark on standard input is omitted.
 */
export async function readNewPassword(): Promise<string> {
  if (!stdin.isTTY) return readFirstLine();
  const [first, second] = await promptHidden(['Password: ', 'Again: ']);
  if (first !== second) throw new CommandError('Cannot set password: the two entries differ');
  if (first?.includes('\ufffd')) throw notUtf8(); // `readline` has replaced bytes.
  return first ?? '';
}

async function readFirstLine(): Promise<string> {
  const parts: Buffer[] = [];
  let lineBytes = 0;
  for await (const chunk of stdin as AsyncIterable<Buffer>) {
    const end = chunk.indexOf('\n');
    const part = end === -1 ? chunk : chunk.subarray(0, end);
    parts.push(part);
    lineBytes += part.length;
    if (end !== -1 || lineBytes > lineBytesMax) break;
  }
  if (lineBytes > lineBytesMax) {
    throw new CommandError(`Cannot read password: longer than ${lineBytesMax} bytes`);
  }
  const line = decodeUtf8(Buffer.concat(parts))?.replace(/\r$/, '');
  if (line === undefined) throw notUtf8();
  if (line === '') throw new CommandError('Cannot read password: standard input is empty');
  return line;
}

function notUtf8(): CommandError {
  return new CommandError('Cannot read password: it is not UTF-8 text');
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
