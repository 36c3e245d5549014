/** Longer than the most expensive permitted computation takes on a busy machine. */
const nativeWorkMsMax = 30_000;

const pendingWork = new Set<Promise<unknown>>();
let counter: Int32Array = new Int32Array(1);

/** Stores the number of pending native computations of this thread in the first element of `shared` from now on. */
export function shareNativeWorkCount(shared: Int32Array): void {
  counter = shared;
}

/**
 * Delays the exit of this thread until `work` settles. Returns the same promise. Needed for argon2, whose
 * addon aborts the whole process when a thread exits during a computation, or before the thread has received
 * the result.
 */
export function trackNativeWork<Result>(work: Promise<Result>): Promise<Result> {
  const untrack = () => {
    pendingWork.delete(work);
    Atomics.store(counter, 0, pendingWork.size);
  };
  pendingWork.add(work);
  Atomics.store(counter, 0, pendingWork.size);
  work.then(untrack, untrack);
  return work;
}

export interface GracefulExit {
  readonly hasBegun: boolean;
  /** Starts the exit. Only the first call has an effect. Never throws. */
  begin(cause: unknown): void;
}

/**
 * Makes this thread exit gracefully on an uncaught exception, an unhandled rejection, or `process.exit`,
 * which then throws. Calls `announce` at once. The thread exits with code 1 when all work passed to
 * `trackNativeWork` has settled, and after 30 s at the latest.
 *
 * Not covered: `terminate()` from outside, and an out-of-memory heap.
 */
export function installGracefulExit(announce: (cause: unknown) => void): GracefulExit {
  const exit = process.exit.bind(process);
  let hasBegun = false;
  const begin = (cause: unknown) => {
    if (hasBegun) return;
    hasBegun = true;
    announce(cause);
    setTimeout(() => exit(1), nativeWorkMsMax);
    void Promise.allSettled(pendingWork).then(() => exit(1));
  };
  process.on('uncaughtException', begin);
  process.exit = (code) => {
    const cause = new Error(`Thread ended by itself, with exit code ${code ?? 0}`);
    begin(cause);
    throw cause;
  };
  return {
    get hasBegun() {
      return hasBegun;
    },
    begin,
  };
}
