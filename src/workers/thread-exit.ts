/** Longer than the costliest work that is accepted takes on a busy machine. */
const nativeWorkMsMax = 30_000;

const pendingWork = new Set<Promise<unknown>>();

/**
 * Work outside of JavaScript that this thread must not end before, given back as it is. argon2 is of
 * that kind: when a thread ends during a computation of it, the addon aborts the whole process.
 */
export function trackNativeWork<Result>(work: Promise<Result>): Promise<Result> {
  const untrack = () => pendingWork.delete(work);
  pendingWork.add(work);
  work.then(untrack, untrack);
  return work;
}

export interface GracefulExit {
  readonly hasBegun: boolean;
  /** Only the first call counts. Never throws. */
  begin(cause: unknown): void;
}

/**
 * From now on this thread ends in order, whatever ends it: an exception or rejection that nobody
 * catches, or `process.exit`, which throws here. `announce` is called at once; the thread ends, with
 * exit code 1, when its `native` work has, after 30 s at the latest.
 *
 * Two ways out remain that wait for nothing: `terminate()` from outside, and a heap that is full.
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
