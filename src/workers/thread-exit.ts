/** Longer than the most expensive permitted computation takes on a busy machine. */
const nativeWorkMsMax = 30_000;

const pendingWork = new Set<Promise<unknown>>();

/**
 * Delays the exit of this thread until `work` settles. Returns the same promise. Needed for
 * argon2, whose addon aborts the whole process when a thread exits during a computation.
 */
export function trackNativeWork<Result>(work: Promise<Result>): Promise<Result> {
  const untrack = () => pendingWork.delete(work);
  pendingWork.add(work);
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
 * which then throws. Calls `announce` at once; the thread exits with code 1 when all work given to
 * `trackNativeWork` has settled, after 30 s at the latest.
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
