import { parentPort } from 'node:worker_threads';
import { installGracefulExit, shareNativeWorkCount } from './thread-exit.js';

/** The jobs of a thread by name. A result must survive structured cloning. */
export type JobTable = Readonly<Record<string, (input: never) => unknown>>;

/**
 * A message to the thread: a job to run, the array for `shareNativeWorkCount`, or the command `end` to accept
 * no more jobs and to exit gracefully.
 */
export type MessageToThread = JobRequest | NativeWorkCounter | 'end';

export interface NativeWorkCounter {
  readonly nativeWork: Int32Array;
}

export interface JobRequest {
  readonly id: number;
  readonly name: string;
  readonly input: unknown;
}

/** The result of a job. `thrown` is a defect, because a job returns expected errors. */
export type JobResult =
  | { readonly kind: 'returned'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'threw'; readonly id: number; readonly thrown: unknown };

export type MessageFromThread =
  | { readonly kind: 'ready' }
  | JobResult
  /** The thread ignores further jobs, sends no results, and exits once its native work is done. */
  | { readonly kind: 'exiting'; readonly cause: unknown };

/**
 * Runs the jobs that a `Pool` sends to this thread. The entry module of the thread calls it once,
 * when everything is loaded. Throws on the main thread. Jobs can overlap: each starts on arrival.
 *
 * A job returns expected errors as values, because error classes do not survive structured cloning. An
 * error that a job throws is a defect: the call rejects, and the thread continues. An uncaught exception
 * and `process.exit` end the thread once its native work is done. See `trackNativeWork`.
 */
export function serveJobs(jobs: JobTable): void {
  if (parentPort === null) throw new Error('Cannot serve jobs: this is not a worker thread');
  const port = parentPort;
  const send = (message: MessageFromThread) => port.postMessage(message);
  const gracefulExit = installGracefulExit((cause) =>
    sendThrown(send, cause, (value) => ({ kind: 'exiting', cause: value })),
  );
  port.on('message', (message: MessageToThread) => {
    if (message === 'end') gracefulExit.begin(new Error('Thread was asked to exit'));
    else if ('nativeWork' in message) shareNativeWorkCount(message.nativeWork);
    else if (!gracefulExit.hasBegun) void runJob(jobs, message, send);
  });
  send({ kind: 'ready' });
}

/** Runs a job and sends its result. Never rejects. */
async function runJob(
  jobs: JobTable,
  { id, name, input }: JobRequest,
  send: (message: JobResult) => void,
): Promise<void> {
  try {
    const job = Object.hasOwn(jobs, name) ? jobs[name] : undefined;
    if (job === undefined) throw new Error(`Cannot run job ${name}: this thread has no such job`);
    // Safe: the pool is typed by the same table.
    send({ kind: 'returned', id, value: await job(input as never) });
  } catch (thrown) {
    sendThrown(send, thrown, (value) => ({ kind: 'threw', id, thrown: value }));
  }
}

function sendThrown<Message extends MessageFromThread>(
  send: (message: Message) => void,
  thrown: unknown,
  toMessage: (thrown: unknown) => Message,
): void {
  try {
    send(toMessage(thrown));
  } catch {
    // The value cannot be cloned; its text can.
    send(toMessage(new Error(String(thrown))));
  }
}
