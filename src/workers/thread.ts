import { parentPort } from 'node:worker_threads';
import { installGracefulExit } from './thread-exit.js';

/** The jobs of a thread by name. A result must survive structured cloning. */
export type JobTable = Readonly<Record<string, (input: never) => unknown>>;

/** To the thread: a job, or `end`, to take no more of them and end in order. */
export type MessageToThread = JobRequest | 'end';

export interface JobRequest {
  readonly id: number;
  readonly name: string;
  readonly input: unknown;
}

/** From the thread. `thrown` is a defect: what may be expected is returned. */
export type JobResult =
  | { readonly kind: 'returned'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'threw'; readonly id: number; readonly thrown: unknown };

export type MessageFromThread =
  | { readonly kind: 'ready' }
  | JobResult
  /** It takes no more orders, answers none, and ends as soon as nothing native runs. */
  | { readonly kind: 'dying'; readonly cause: unknown };

/**
 * Makes this thread do the jobs a `Pool` sends it; called once, by the entry of the thread, when
 * everything is loaded. Jobs may overlap: each is started as it comes.
 *
 * A job returns what its caller may expect to go wrong, for error classes do not survive the way
 * back. What it throws is a defect and rejects for the caller; the thread goes on. What nobody
 * catches, and `process.exit`, end the thread, but not before its `native` work has ended.
 */
export function serveJobs(jobs: JobTable): void {
  if (parentPort === null) throw new Error('Cannot serve jobs: this is not a worker thread');
  const port = parentPort;
  const send = (message: MessageFromThread) => port.postMessage(message);
  const gracefulExit = installGracefulExit((cause) =>
    sendThrown(send, cause, (it) => ({ kind: 'dying', cause: it })),
  );
  port.on('message', (order: MessageToThread) => {
    if (order === 'end') gracefulExit.begin(new Error('Thread was asked to exit'));
    else if (!gracefulExit.hasBegun) void runJob(jobs, order, send);
  });
  send({ kind: 'ready' });
}

/** Never rejects. */
async function runJob(
  jobs: JobTable,
  { id, name, input }: JobRequest,
  send: (message: JobResult) => void,
): Promise<void> {
  try {
    const job = Object.hasOwn(jobs, name) ? jobs[name] : undefined;
    if (job === undefined) throw new Error(`Cannot do job ${name}: this thread has no such job`);
    // The pool is typed by the same table, so the input is what the job takes.
    send({ kind: 'returned', id, value: await job(input as never) });
  } catch (thrown) {
    sendThrown(send, thrown, (it) => ({ kind: 'threw', id, thrown: it }));
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
    // Whatever it is cannot be cloned; its text can.
    send(toMessage(new Error(String(thrown))));
  }
}
