import type { Worker } from 'node:worker_threads';
import { startThread } from '../util/start-thread.js';
import type { JobRequest, JobResult, MessageFromThread, MessageToThread } from './thread.js';

export interface PoolThreadOptions {
  readonly entry: URL;
  readonly workerData: unknown;
  readonly onResult: (answer: JobResult) => void;
}

const loadMsMax = 60_000;

/** One thread as the pool sees it, from its start to its end; it is replaced, not restarted. */
export class PoolThread<Job> {
  readonly #running = new Map<number, Job>();
  /** Rejects with the reason when it ends before it could take jobs. */
  readonly ready: Promise<void>;
  /** Settles with the reason when it will answer no more, whatever it was. Never rejects. */
  readonly lost: Promise<unknown>;
  /** Settles when it has ended, which a lost one does once nothing native runs on it. */
  readonly exited: Promise<void>;
  readonly #worker: Worker;
  #isStopping = false;
  #isLost = false;

  /** Throws when the system has no thread left, or `workerData` cannot be cloned. */
  constructor({ entry, workerData, onResult }: PoolThreadOptions) {
    const worker = startThread(entry, { workerData });
    this.#worker = worker;
    this.exited = new Promise((resolve) => worker.once('exit', () => resolve()));
    this.lost = whenLost(worker, () => {
      this.#isLost = true;
    });
    // An answer that cannot be read is the end too: its caller would wait for ever.
    worker.on('messageerror', () => this.#send('end'));
    this.ready = new Promise((resolve, reject) => {
      const late = setTimeout(() => void worker.terminate(), loadMsMax);
      worker.on('message', (message: MessageFromThread) => {
        if (message.kind === 'dying') return;
        if (message.kind !== 'ready') return onResult(message);
        clearTimeout(late);
        resolve();
      });
      void this.lost.then((cause) => {
        clearTimeout(late);
        reject(cause);
      });
    });
  }

  /** What it was sent and has not answered, by id of the order. */
  get running(): ReadonlyMap<number, Job> {
    return this.#running;
  }

  /** It may still answer, but takes no more orders. */
  get isEnding(): boolean {
    return this.#isStopping || this.#isLost;
  }

  /** Throws when the input cannot be cloned; then the job is not running. */
  start(job: Job, order: JobRequest): void {
    this.#send(order);
    this.#running.set(order.id, job);
  }

  /** The job of an answer, which no longer runs. */
  finish(id: number): Job | undefined {
    const job = this.#running.get(id);
    this.#running.delete(id);
    this.#terminateWhenIdle();
    return job;
  }

  /** The jobs a lost thread leaves behind; what it might still say of them is not heard. */
  abandon(): readonly Job[] {
    const jobs = [...this.#running.values()];
    this.#running.clear();
    return jobs;
  }

  /**
   * Ends the thread once nothing runs on it. Settles when it has ended; twice is fine.
   *
   * It has to wait: argon2 aborts the whole process when its thread ends during a computation.
   */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#terminateWhenIdle();
    await this.exited;
  }

  /** A lost thread ends by itself: its jobs are abandoned, but may still compute. */
  #terminateWhenIdle(): void {
    if (!this.#isStopping || this.#isLost || this.#running.size > 0) return;
    void this.#worker.terminate();
  }

  #send(message: MessageToThread): void {
    this.#worker.postMessage(message);
  }
}

/** `note` is called at once, before anything that waits for the promise. */
function whenLost(worker: Worker, onLost: () => void): Promise<unknown> {
  return new Promise((resolve) => {
    const lose = (cause: unknown) => {
      onLost();
      resolve(cause);
    };
    worker.on('message', (message: MessageFromThread) => {
      if (message.kind === 'dying') lose(message.cause);
    });
    worker.once('error', lose);
    worker.once('messageerror', lose);
    worker.once('exit', (code) =>
      lose(new Error(`Thread ended by itself, with exit code ${code}`)),
    );
  });
}
